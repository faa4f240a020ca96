"""Partition of the training images over the clients, by the scheme and settings of the configuration."""

from collections.abc import Sequence

import numpy as np

from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.partition import SHARING, PartitionConfig, PartitionError
from fedpareto.training.data.partition import schemes
from fedpareto.training.data.partition.schemes import ImpossibleError


def partition(
    labels: Sequence[int],
    clients: int,
    config: PartitionConfig,
    batch_size: int,
    generator: np.random.Generator,
    shares: FloatArray | None = None,
) -> list[list[int]]:
    """Return the positions of every client's images in ``labels``.

    With ``shares``, (clients,), the schemes iid and dirichlet give every client its share of all images.

    Raises:
        PartitionError: a client would get less than one batch; the message says what to change.
    """
    # Schemes cut consecutive runs: shuffle first, so that they do not follow the file order.
    order = generator.permutation(len(labels))
    seed = int(generator.integers(2**31))
    try:
        shuffled = np.asarray(labels)[order]
        if shares is None:
            parts = _split(shuffled, clients, config, batch_size, seed)
        else:
            parts = _split_by(shares, shuffled, config, batch_size, seed)
    except ImpossibleError as error:
        raise PartitionError(
            f"cannot split {counted(len(labels), 'image')} over {counted(clients, 'client')} by {config.scheme} with "
            f"at least one batch of {batch_size} each; {_remedy(config)}"
        ) from error
    result = [sorted(order[part].tolist()) for part in parts]
    sizes = [len(part) for part in result]
    if min(sizes) < batch_size:
        raise PartitionError(
            f"client {int(np.argmin(sizes))} gets {counted(min(sizes), 'image')}, under one batch of {batch_size}; "
            f"{_remedy(config)}"
        )
    return result


def _split(labels: IntArray, clients: int, config: PartitionConfig, batch_size: int, seed: int) -> list[IntArray]:
    generator = np.random.default_rng(seed)
    match config.scheme:
        case "iid":
            return schemes.even(labels, clients)
        case "dirichlet" if config.balanced:
            return schemes.balanced(labels, clients, config.alpha, batch_size, generator)
        case "dirichlet":
            return schemes.dirichlet(labels, clients, config.alpha, batch_size, generator)
        case "pathological":
            return schemes.pathological(labels, clients, config.classes_per_client, generator)
        case "shard":
            return schemes.shards(labels, clients, config.shards_per_client, generator)
        case "linear":
            return schemes.growing(labels, clients, lambda number: number)
        case "square":
            return schemes.growing(labels, clients, np.square)
        case "exponential":
            return schemes.growing(labels, clients, np.exp)
        case "natural":
            raise ValueError("images that belong to clients are not partitioned")


def _split_by(
    shares: FloatArray, labels: IntArray, config: PartitionConfig, batch_size: int, seed: int
) -> list[IntArray]:
    if config.scheme not in SHARING:
        raise ValueError(f"the scheme {config.scheme} has amounts of its own")
    if config.scheme == "iid":
        return schemes.shared(labels, shares)
    return schemes.allotted(labels, shares, config.alpha, batch_size, np.random.default_rng(seed))


def _remedy(config: PartitionConfig) -> str:
    remedies = {
        "dirichlet": f"raise {option('partition.alpha')} (now {config.alpha}), ",
        "pathological": f"lower {option('partition.classes-per-client')}, ",
        "shard": f"lower {option('partition.shards-per-client')}, ",
    }
    return (
        f"{remedies.get(config.scheme, '')}lower {option('client.batch-size')} or use fewer {option('clients.count')}"
    )
