"""Supernets: search spaces, architectures, the layer table, networks and the slices that subnets own.

A supernet is the largest network of a search space. Every smaller network, a subnet, uses a slice of each of its
tensors. All but ``networks`` use numpy at most; ``networks`` needs torch and is imported where networks are wanted.
"""
