"""DecNAS: a federated architecture search that trains candidates, each on a group of clients."""
