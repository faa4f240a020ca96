"""Latency tables: a device's milliseconds for every block of a space, measured and used as an additive cost."""
