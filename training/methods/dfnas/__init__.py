"""DFNAS: weights and path probabilities of an over-parameterised network, trained together by all clients."""
