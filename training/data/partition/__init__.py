"""The partition: which of the training images each client has."""
