"""Training methods behind one interface: each decides which clients train which networks in a round."""
