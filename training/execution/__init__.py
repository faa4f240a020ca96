"""Execution: on which device, in which precision and memory clients' steps run."""
