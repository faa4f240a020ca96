"""Runtimes that run networks (torch, onnxruntime), and the timing of their runs."""
