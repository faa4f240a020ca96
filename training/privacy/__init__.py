"""Differential privacy of the clients: clipped updates, noise on their sum, and the account of the guarantee (ε, δ)."""
