"""Runtimes: what runs a network, and how a run is timed."""
