"""Exact solver of the Pareto frontier: dynamic programming over blocks, with a proof that nothing better exists."""
