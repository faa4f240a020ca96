"""The exact solver: labels over blocks give the whole frontier, and prove it."""
