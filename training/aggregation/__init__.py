"""Aggregation: the slices that clients send, averaged over overlapping positions of the supernet."""
