"""Predictor-free search of the fittest architecture under limits, and the subnet it stands for."""
