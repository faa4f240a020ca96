"""Settings of the partition: how training images are spread over clients."""

import dataclasses
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

Scheme = Literal["iid", "dirichlet", "pathological", "shard", "linear", "square", "exponential", "given"]


class PartitionError(UserError):
    """A partition that cannot be made, or that leaves a client without a batch."""


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """Partition of the training images over the clients.

    Attributes:
        scheme: iid; dirichlet (label skew alpha); pathological (a number of classes a client); shard
            (shards of sorted labels); linear, square, exponential (quantity skew, growing with the client); given (the
            data say whose each image is).
        alpha: concentration of the Dirichlet draw; smaller is more skewed.
        classes_per_client: classes a client sees under pathological.
        shards_per_client: shards a client gets under shard.
        balanced: under dirichlet a client that has an equal share of the images gets none of the classes to come, as in
            the code of SuperFedNAS and DeepFedNAS.
    """

    scheme: Scheme = "dirichlet"
    alpha: float = bounded(1.0, above=0, hint=", e.g. 0.3")
    classes_per_client: int = bounded(2, least=1)
    shards_per_client: int = bounded(2, least=1)
    balanced: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, "partition", PartitionError)


#: Schemes that can give every client a share of all images.
SHARING: tuple[Scheme, ...] = ("iid", "dirichlet")
