"""Fitting of a fitness to accuracies: its weights, or a term for every choice of every block."""
