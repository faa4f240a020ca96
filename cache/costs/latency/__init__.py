"""Latency tables: a device's times for the blocks of a space, as a file and as an additive cost."""
