"""Differential privacy: clipped updates, noise, and the account of what is spent."""
