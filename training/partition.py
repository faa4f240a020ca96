"""How the training images are spread over the clients: flwr-datasets partitioners on in-memory labels."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from supernet.errors import UserError
from supernet.words import counted

Scheme = Literal["iid", "dirichlet", "pathological", "shard", "linear", "square", "exponential"]


class PartitionError(UserError):
    """A partition that cannot be made, or that leaves a client without a batch."""


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """How training images are spread over clients.

    Attributes:
        scheme: iid; dirichlet (label skew alpha); pathological (a number of classes a client); shard
            (shards of sorted labels); linear, square, exponential (quantity skew, growing with the client).
        alpha: concentration of the Dirichlet draw; smaller is more skewed.
        classes_per_client: classes a client sees under pathological.
        shards_per_client: shards a client gets under shard.
    """

    scheme: Scheme = "dirichlet"
    alpha: float = 1.0
    classes_per_client: int = 2
    shards_per_client: int = 2

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise PartitionError(f"partition.alpha is {self.alpha}; it must be positive, e.g. 0.3")
        for name in ("classes_per_client", "shards_per_client"):
            if getattr(self, name) < 1:
                raise PartitionError(f"partition.{name} is {getattr(self, name)}; it must be at least 1")


def partition(
    labels: Sequence[int],
    clients: int,
    config: PartitionConfig,
    batch_size: int,
    generator: np.random.Generator,
) -> list[list[int]]:
    """Return, for every client, the positions of its images in ``labels``.

    Raises:
        PartitionError: a client would get less than one batch; the message says what to change.
    """
    # The partitioners cut consecutive runs: shuffle first, so that they do not follow the file order.
    order = generator.permutation(len(labels))
    seed = int(generator.integers(2**31))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = _split(np.asarray(labels)[order], clients, config, batch_size, seed)
    except (ValueError, IndexError, ZeroDivisionError) as error:
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


def _split(
    labels: np.ndarray[Any, Any], clients: int, config: PartitionConfig, batch_size: int, seed: int
) -> list[list[int]]:
    # A library of several seconds of import; only runs pay for it.
    from training.partition_rows import LabelRows  # noqa: PLC0415

    partitioner = _partitioner(config, clients, batch_size, seed)
    partitioner.dataset = LabelRows.of(labels.tolist())
    return [partitioner.load_partition(client) for client in range(clients)]


def _partitioner(config: PartitionConfig, clients: int, batch_size: int, seed: int) -> Any:
    from flwr_datasets import partitioner as flower  # noqa: PLC0415

    if config.scheme == "dirichlet":
        return flower.DirichletPartitioner(
            clients, partition_by="label", alpha=config.alpha, min_partition_size=batch_size, seed=seed
        )
    if config.scheme == "pathological":
        return flower.PathologicalPartitioner(
            clients,
            partition_by="label",
            num_classes_per_partition=config.classes_per_client,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
    if config.scheme == "shard":
        return flower.ShardPartitioner(
            clients, partition_by="label", num_shards_per_partition=config.shards_per_client, seed=seed
        )
    sized = {
        "iid": flower.IidPartitioner,
        "linear": flower.LinearPartitioner,
        "square": flower.SquarePartitioner,
        "exponential": flower.ExponentialPartitioner,
    }
    return sized[config.scheme](clients)


def _remedy(config: PartitionConfig) -> str:
    remedies = {
        "dirichlet": f"raise --partition.alpha (now {config.alpha}), ",
        "pathological": "lower --partition.classes-per-client, ",
        "shard": "lower --partition.shards-per-client, ",
    }
    return f"{remedies.get(config.scheme, '')}lower --client.batch-size or use fewer --clients.count"
