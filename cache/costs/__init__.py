"""Costs of architectures: MACs, parameters, file size, memory and latency, and limits on them."""
