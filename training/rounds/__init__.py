"""Rounds of a run: the training loop, and the ways to stop it, lengthen it and end it."""
