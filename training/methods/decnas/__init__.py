"""DecNAS: federated architecture search by training candidates, each on a group of clients."""
