"""Partition schemes: each divides the positions of an array of labels among the clients.

The draws equal those of flwr-datasets' partitioners of these names, except for ``shared``, ``balanced`` and
``allotted``, which that library does not have. The library itself is not used: its import, with pandas and pyarrow,
takes longer than all else that starts a run, and it takes seconds to divide the images of 10,000 clients. Every scheme
returns one array of positions for each client, and no position twice. It raises ``ImpossibleError`` where the images
are too few for it.
"""

from collections.abc import Callable

import numpy as np

from fedpareto.supernet.arrays import FloatArray, IntArray

#: Dirichlet draws before it is given up: a fixed number, so that the same run always ends alike.
_DRAWS = 11

#: What Dirichlet is given at least for every client.
_LEAST_CONCENTRATION = 1e-6


class ImpossibleError(Exception):
    """Error of too few images for the number that a scheme promises every client."""


def even(labels: IntArray, clients: int) -> list[IntArray]:
    """Return consecutive runs of positions, whose lengths differ by at most one."""
    return np.array_split(np.arange(len(labels)), clients)


def growing(labels: IntArray, clients: int, size: Callable[[FloatArray], FloatArray]) -> list[IntArray]:
    """Return consecutive runs of positions, whose lengths are in proportion to ``size`` of the client's number, from 1.

    Lengths are rounded down, and the last client gets the rest.
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
    """Return parts by shares of every class from Dirichlet(alpha, …, alpha), drawn until every client has ``least``.

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


def shared(labels: IntArray, shares: FloatArray) -> list[IntArray]:
    """Return consecutive runs of positions, with the given shares of all images."""
    return np.split(np.arange(len(labels)), _cuts(shares, len(labels)))


def balanced(
    labels: IntArray, clients: int, alpha: float, least: int, generator: np.random.Generator
) -> list[IntArray]:
    """Return parts as ``dirichlet`` does, but a client that has an equal share already gets nothing of later classes.

    FedMA's code does the same, and after it the code of SuperFedNAS and DeepFedNAS.
    """
    equal = np.full(clients, 1 / clients)
    for _ in range(_DRAWS):
        owners, sizes = _capped(labels, equal, lambda _: np.full(clients, alpha), generator)
        if sizes.min() >= least:
            return _owned(owners, sizes)
    raise ImpossibleError


def allotted(
    labels: IntArray, shares: FloatArray, alpha: float, least: int, generator: np.random.Generator
) -> list[IntArray]:
    """Return parts of about the given ``shares`` of all images, with skewed labels.

    The n images of a class are divided by shares from Dirichlet(α·n·q_1, …), with q_i the clients' shares of all
    images. A client that has its share already gets nothing of later classes (FEAST, 2026, "asymmetric Dirichlet").
    There, clients of few images train smaller batches; here, a client with less than ``least`` gets the rest from the
    client that is furthest above its share.
    """
    if least * len(shares) > len(labels):
        raise ImpossibleError

    def concentration(images: int) -> FloatArray:
        return np.maximum(alpha * images * shares, _LEAST_CONCENTRATION)

    owners, sizes = _capped(labels, shares, concentration, generator)
    while sizes.min() < least:
        poorest = int(sizes.argmin())
        richest = int(np.where(sizes > least, sizes - shares * len(labels), -np.inf).argmax())
        count = min(least - sizes[poorest], sizes[richest] - least)
        given = generator.choice(np.flatnonzero(owners == richest), count, replace=False)
        owners[given] = poorest
        sizes[[poorest, richest]] += count, -count
    return _owned(owners, sizes)


def pathological(
    labels: IntArray, clients: int, classes_per_client: int, generator: np.random.Generator
) -> list[IntArray]:
    """Return even parts of ``classes_per_client`` classes each: the first class in turn, the others drawn at random."""
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
    """Return ``shards_per_client`` random shards a client: runs of equal length of the images sorted by label.

    Shards that no client has drawn, and images after the last whole shard, are not used.

    McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (2017).
    """
    used = clients * shards_per_client
    size = len(labels) // used
    if not size:
        raise ImpossibleError
    drawn = generator.permutation(len(labels) // size)[:used].reshape(clients, shards_per_client, 1)
    by_label = np.argsort(labels, kind="stable")
    return list(by_label[(drawn * size + np.arange(size)).reshape(clients, -1)])


def _capped(
    labels: IntArray,
    shares: FloatArray,
    concentration: Callable[[int], FloatArray],
    generator: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """Return every image's owner and every owner's number of images; one that has its share gets no later class."""
    owners, sizes = np.empty(len(labels), dtype=np.int64), np.zeros(len(shares), dtype=np.int64)
    wanted = shares * len(labels)
    for label in np.unique(labels):
        positions = np.nonzero(labels == label)[0]
        drawn = generator.dirichlet(concentration(len(positions))) * (sizes < wanted)
        if not drawn.sum() > 0:
            # All that was drawn went to those who have their share.
            drawn = np.maximum(wanted - sizes, 0)
        cuts = _cuts(drawn / drawn.sum(), len(positions))
        owners[positions] = np.searchsorted(cuts, np.arange(len(positions)), side="right")
        sizes += np.bincount(owners[positions], minlength=len(shares))
    return owners, sizes


def _cuts(shares: FloatArray, count: int) -> IntArray:
    """Return the positions that cut ``count`` things into the given shares."""
    cuts: IntArray = (np.cumsum(shares) * count).astype(np.int64)[:-1]
    return cuts


def _drawn_classes(client: int, classes: int, count: int, generator: np.random.Generator) -> set[int]:
    drawn = {client % classes}
    while len(drawn) < count:
        drawn.add(int(generator.integers(classes)))
    return drawn


def _owned(owners: IntArray, sizes: IntArray) -> list[IntArray]:
    """Return the ascending positions of every owner's images."""
    return np.split(np.argsort(owners, kind="stable"), np.cumsum(sizes)[:-1])
