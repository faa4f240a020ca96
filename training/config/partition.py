"""Settings of the partition: how training images are spread over clients."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

Scheme = Literal["iid", "dirichlet", "pathological", "shard", "linear", "square", "exponential", "natural"]

#: The scheme of data that say whose each image is.
NATURAL: Scheme = "natural"


class PartitionError(UserError):
    """A partition that cannot be made, or that leaves a client without a batch."""


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """Partition of the training images over the clients.

    Attributes:
        scheme: iid; dirichlet (label skew alpha); pathological (a number of classes a client); shard
            (shards of sorted labels); linear, square, exponential (quantity skew, growing with the client); natural
            (the data say whose each image is).
        alpha: concentration of the Dirichlet draw; smaller is more skewed.
        classes_per_client: classes a client sees under pathological.
        shards_per_client: shards a client gets under shard.
        balanced: under dirichlet a client that has an equal share of the images gets none of the classes to come, as in
            the code of SuperFedNAS and DeepFedNAS.
        min_images: under natural, clients with fewer training images are left out.
    """

    scheme: Scheme = "dirichlet"
    alpha: float = bounded(1.0, above=0, hint=", e.g. 0.3")
    classes_per_client: int = bounded(2, least=1)
    shards_per_client: int = bounded(2, least=1)
    balanced: bool = False
    min_images: int = bounded(2, least=2, hint=", as batch norm needs two")

    def __post_init__(self) -> None:
        check_bounds(self, "partition", PartitionError)

    @staticmethod
    def modern_mapping(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings of the group as they are called today: the scheme ``natural`` was ``given``."""
        return {**mapping, "scheme": NATURAL} if mapping.get("scheme") == "given" else mapping


#: Schemes that can give every client a share of all images.
SHARING: tuple[Scheme, ...] = ("iid", "dirichlet")
