"""DFNAS: a search in which clients train the weights and the path probabilities of one large network together."""
