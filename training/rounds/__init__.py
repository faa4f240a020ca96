"""Rounds: the loop that a run is, how it is stopped, lengthened and ended."""
