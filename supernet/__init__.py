"""Supernets: search spaces, architectures, the layer table, networks and the slices that subnets own.

A supernet is the largest network of a search space. Every smaller network, a subnet, uses a slice of each of its
tensors. ``space``, ``architecture``, ``genes``, ``layer_table`` and ``slices`` use numpy only; ``network`` and
``weights`` need torch and are imported where networks are wanted.
"""
