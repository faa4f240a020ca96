"""Partition that a data set brings along, by the client of each image."""

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.partition import PartitionError
from fedpareto.training.data.files.listing import Listing


def given_parts(listing: Listing, training: Tensor, clients: int, batch_size: int) -> list[list[int]]:
    """Positions of every client's images among the ``training`` ones, by the clients that the data set names.

    Raises:
        PartitionError: the data set names no clients, or others than the run has, or gives one less than a batch.
    """
    if listing.clients is None:
        raise PartitionError("partition.scheme is given, and the data do not say whose each image is; choose another")
    members = listing.clients[training]
    named = int(members.max()) + 1
    if named != clients:
        belong = f"the images belong to {counted(named, 'client')}"
        raise PartitionError(f"clients.count is {clients}, and {belong}; give {option('clients.count')} {named}")
    parts = [torch.nonzero(members == client).flatten().tolist() for client in range(clients)]
    for client, part in enumerate(parts):
        if len(part) < batch_size:
            raise PartitionError(
                f"client {client} has {counted(len(part), 'training image')}, under one batch of {batch_size}; lower "
                f"{option('client.batch-size')}, or leave clients out that have so few"
            )
    return parts
