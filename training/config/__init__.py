"""The configuration of a run: every setting with its bounds, in frozen values."""
