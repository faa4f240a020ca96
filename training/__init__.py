"""Federated training of a supernet: data, partition, curriculum, client, aggregation, engines, trackers."""
