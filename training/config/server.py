"""Settings of the server: how the clients' updates become the supernet."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

#: β of the largest network in the first round of a run without noise (MaxNet, SuperFedNAS 2024).
LARGEST_WEIGHT = 0.9

#: Of a server's rate: beyond it nothing has been seen to train.
_LARGEST_SERVER_RATE = 10.0

#: Rules of aggregation in which all clients weigh the same: with β one of them would decide alone.
EQUAL_WEIGHTS = ("clipped", "median", "trimmed", "krum")


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """Aggregation.

    Attributes:
        largest_weight: β of the largest network in the first round; falls to 1/clients over 80 % of the rounds. When
            left out 0.9, and with privacy.noise, which larger weights need more of, an equal share.
        weight_by_examples: multiply every client's weight by its number of images.
        max_share: largest share of a round's images that one client's weight may count for where weights are multiplied
            by images, as some methods do always; where clients are more than its inverse. When left out 0.5 with engine
            flower and three or more clients a round, 1 (no limit) otherwise.
        momentum: of the server (FedAvgM), μ; steps add up to 1/(1 − μ) times their size, which lr 1 − μ makes up for; 0
            for none.
        lr: share of the clients' mean step that the supernet is moved by; 1 with momentum 0 is plain averaging.
        aggregation: how updates become the supernet: mean; clipped, median, trimmed or krum, which hold against hostile
            clients and weigh all clients alike; or the name of a registered one.
        trim: share of an entry's clients that trimmed leaves out at either end, at least one of three or more.
        hostile: most hostile clients of a round that krum holds against; a fifth of those that answer when left out.
        outlier_factor: an update that moves its weights more than this many times as far as the median client's is
            refused; 0 for no bound.
    """

    largest_weight: float | None = bounded(None, above=0, below=1)
    weight_by_examples: bool = False
    momentum: float = bounded(0.0, least=0, below=1)
    lr: float = bounded(1.0, above=0, most=_LARGEST_SERVER_RATE)
    aggregation: str = "mean"
    trim: float = bounded(0.2, above=0, below=0.5)
    hostile: int | None = bounded(None, least=1)
    max_share: float | None = bounded(None, above=0, most=1)
    outlier_factor: float = bounded(20.0, least=0, below=math.inf, hint=" (0 for no bound)")

    def __post_init__(self) -> None:
        check_bounds(self, "server")
        if 0 < self.outlier_factor < 1:
            raise UserError(
                f"server.outlier_factor is {self.outlier_factor:g}; it must be at least 1, or 0 for no bound: half of "
                "all honest updates are beyond the median"
            )

    @property
    def weighs_clients(self) -> bool:
        """True if clients may weigh more than others."""
        return self.aggregation not in EQUAL_WEIGHTS

    @staticmethod
    def modern_mapping(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings of the group as they are called today: ``aggregation`` was ``aggregator``, its mean ``average``."""
        if "aggregator" not in mapping or "aggregation" in mapping:
            return mapping
        named = {"aggregator": "aggregation"}
        modern = {named.get(name, name): value for name, value in mapping.items()}
        return {**modern, "aggregation": "mean"} if modern["aggregation"] == "average" else modern
