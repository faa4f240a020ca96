"""How well the fitness ranks networks by accuracy, and weights that rank better."""
