"""Profiling of a device: measures the milliseconds of every block of a space for its latency table."""
