"""Partition of the training images over the clients."""
