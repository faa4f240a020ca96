"""Queries: limits of a device are read, and answered by the architecture of the highest fitness."""
