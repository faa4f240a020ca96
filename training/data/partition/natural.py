"""Natural partition: the clients that a data set names, with their own images."""

import dataclasses

import numpy as np
from torch import Tensor

from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.clients import DEFAULT_COUNT
from fedpareto.training.config.partition import PartitionError
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.listing import Listing


@dataclasses.dataclass(frozen=True)
class NaturalClients:
    """Clients that a data set names.

    Attributes:
        parts: positions of every client's images among those to train with.
        names: names of the clients, in their order.
        named: number of clients that the data name, those with too few images included.
        remarks: for the user, of clients that are left out.
    """

    parts: list[list[int]]
    names: tuple[str, ...]
    named: int
    remarks: tuple[str, ...]

    def check_count(self, config: RunConfig) -> None:
        """Refuse a configuration that has another number of clients.

        Raises:
            PartitionError: naming both numbers.
        """
        count, found = config.clients.count, len(self.parts)
        if count != found:
            apart = f", {self.named - found:,} of {self.named:,} left out for their few" if found < self.named else ""
            raise PartitionError(
                f"clients.count is {count}, and the images belong to {counted(found, 'client')}{apart}; give "
                f"{option('clients.count')} {found}, or leave it out"
            )


def natural_clients(listing: Listing, training: Tensor, least: int) -> NaturalClients:
    """Clients of a listing, with the positions of their images among the ``training`` ones.

    Clients of fewer than ``least`` images are left out, and those who stay are numbered without them.

    Raises:
        PartitionError: the data set names no clients, or gives none so many images.
    """
    if listing.clients is None:
        raise PartitionError("partition.scheme is natural, and the data do not say whose each image is; choose another")
    owners = listing.clients[training].numpy()
    named = len(listing.client_names) or int(owners.max()) + 1
    order = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners, minlength=named)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    kept = np.flatnonzero(sizes >= least)
    if not len(kept):
        raise PartitionError(
            f"none of {counted(named, 'client')} has partition.min_images {least} of the images to train with; lower it"
        )
    names = listing.client_names or tuple(map(str, range(named)))
    remarks: tuple[str, ...] = ()
    if len(kept) < named:
        poor = int(np.flatnonzero(sizes < least)[0])
        remarks = (
            f"left out: {named - len(kept):,} of {counted(named, 'client')} with fewer images to train with than "
            f"{least} (e.g. {names[poor]} with {sizes[poor]}); {option('partition.min-images')} sets the least",
        )
    return NaturalClients(
        [parts[client].tolist() for client in kept], tuple(names[client] for client in kept), named, remarks
    )


def with_count(config: RunConfig, found: NaturalClients) -> RunConfig:
    """Return ``config`` with the number of clients found, where it has none of its own.

    A number that counts those who are left out is taken for the number of those who stay.

    Raises:
        PartitionError: it has another number.
        UserError: it draws more clients a round than there are.
    """
    count = len(found.parts)
    if config.clients.count not in (DEFAULT_COUNT, found.named):
        found.check_count(config)
    return with_own_count(config, count)


def with_own_count(config: RunConfig, count: int) -> RunConfig:
    """Return ``config`` with so many clients.

    Raises:
        UserError: it draws more clients a round than there are.
    """
    clients = dataclasses.replace(config.clients, count=count)
    clients.check_drawn()
    return dataclasses.replace(config, clients=clients)
