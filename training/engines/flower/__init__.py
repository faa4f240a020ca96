"""A federation of real clients: what crosses the network, the server's line to Flower, what a node does."""
