"""Measurement of subnets of a run: which are drawn, and how accurate they are."""
