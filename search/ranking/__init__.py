"""Validation of the fitness: its rank correlation with measured accuracy, and weights that rank better."""
