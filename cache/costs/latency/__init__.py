"""Latency tables: a device's times for the blocks of a space, which add up to the latency of a network."""
