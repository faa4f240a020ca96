"""The partition schemes: which positions of an array of labels every client gets.

The draws are those of flwr-datasets' partitioners of these names. That library itself is not used: to import it, with
pandas and pyarrow, takes longer than all else that starts a run, and to divide the images of 10,000 clients takes it
seconds. Every scheme returns one array of positions for each client, and no position twice; it raises
``ImpossibleError`` where the images are too few for it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from supernet.layouts import IntArray

#: Dirichlet draws before it is given up: a fixed number, so that the same run always ends alike.
_DRAWS = 11


class ImpossibleError(Exception):
    """There are too few images for what a scheme promises every client."""


def even(labels: IntArray, clients: int) -> list[IntArray]:
    """Return consecutive runs of lengths that differ by at most one."""
    return np.array_split(np.arange(len(labels)), clients)


def growing(
    labels: IntArray, clients: int, size: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[IntArray]:
    """Return consecutive runs whose lengths are in proportion to ``size`` of the client's number, from 1.

    What rounding down leaves over goes to the last client.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        parts = size(np.linspace(1, clients, clients))
        lengths = parts / parts.sum() * len(labels)
    # An exponential of many clients is no longer a number.
    if not (lengths >= 1).all():
        raise ImpossibleError
    cuts = np.cumsum(lengths.astype(np.int64))[:-1]
    return np.split(np.arange(len(labels)), cuts)


def dirichlet(
    labels: IntArray, clients: int, alpha: float, least: int, generator: np.random.Generator
) -> list[IntArray]:
    """Return shares of every class as Dirichlet(alpha, …, alpha) has it, drawn again until every client has ``least``.

    Yurochkin et al., "Bayesian nonparametric federated learning of neural networks" (2019).
    """
    if clients > len(labels):
        raise ImpossibleError
    concentration = np.full(clients, alpha)
    members = [np.nonzero(labels == label)[0] for label in np.unique(labels)]
    for _ in range(_DRAWS):
        owners = np.empty(len(labels), dtype=np.int64)
        for positions in members:
            cuts = (np.cumsum(generator.dirichlet(concentration)) * len(positions)).astype(np.int64)[:-1]
            owners[positions] = np.searchsorted(cuts, np.arange(len(positions)), side="right")
        sizes = np.bincount(owners, minlength=clients)
        if sizes.min() >= least:
            return _owned(owners, sizes)
    raise ImpossibleError


def pathological(
    labels: IntArray, clients: int, classes_per_client: int, generator: np.random.Generator
) -> list[IntArray]:
    """Return even parts of so many classes a client, of which the first is its turn and the others are drawn."""
    classes = np.unique(labels)
    if clients > len(labels) or classes_per_client > len(classes):
        raise ImpossibleError
    chosen = [_drawn_classes(client, len(classes), classes_per_client, generator) for client in range(clients)]
    parts: list[list[IntArray]] = [[] for _ in range(clients)]
    for number, label in enumerate(classes):
        positions = np.nonzero(labels == label)[0]
        takers = [client for client, own in enumerate(chosen) if number in own]
        if len(takers) > len(positions):
            raise ImpossibleError
        if takers:
            for client, part in zip(takers, np.array_split(positions, len(takers)), strict=True):
                parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def shards(labels: IntArray, clients: int, shards_per_client: int, generator: np.random.Generator) -> list[IntArray]:
    """Return so many shards a client, drawn at random: runs of equal length of the images sorted by label.

    What no client has drawn, and what is left after the last whole shard, nobody gets.

    McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (2017).
    """
    used = clients * shards_per_client
    size = len(labels) // used
    if not size:
        raise ImpossibleError
    drawn = generator.permutation(len(labels) // size)[:used].reshape(clients, shards_per_client, 1)
    by_label = np.argsort(labels, kind="stable")
    return list(by_label[(drawn * size + np.arange(size)).reshape(clients, -1)])


def _drawn_classes(client: int, classes: int, count: int, generator: np.random.Generator) -> set[int]:
    drawn = {client % classes}
    while len(drawn) < count:
        drawn.add(int(generator.integers(classes)))
    return drawn


def _owned(owners: IntArray, sizes: IntArray) -> list[IntArray]:
    """Return the ascending positions of every owner."""
    return np.split(np.argsort(owners, kind="stable"), np.cumsum(sizes)[:-1])
