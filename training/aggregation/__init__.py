"""Aggregation: the server's average of the clients' updates, whose slices of the supernet overlap."""
