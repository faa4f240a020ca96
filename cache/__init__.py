"""The Pareto cache: its solvers, its file format and ``build-cache``."""
