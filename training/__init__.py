"""Federated training of a supernet: clients train subnets on their own images, and a server averages their updates."""
