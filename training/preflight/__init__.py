"""Preflight of a federation: what a machine needs before a run, checked, each line with its remedy."""
