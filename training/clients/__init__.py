"""Clients: the local training of a round, on a client's own images, with a network that the client can run."""
