"""The evolutionary solver: NSGA-II of pymoo over genes, within limits."""
