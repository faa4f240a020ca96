"""What a user can set of the methods."""

import dataclasses
from typing import Literal

from supernet.errors import UserError

MethodName = Literal["deepfednas", "superfednas", "fedavg", "cotrain"]

CoTrainedNetworks = Literal["all", "extremes", "largest", "smallest"]


@dataclasses.dataclass(frozen=True)
class FedAvgConfig:
    """Federated averaging of one network.

    Attributes:
        architecture: JSON file of it; the largest cache entry that every client can run when left out.
    """

    architecture: str | None = None


@dataclasses.dataclass(frozen=True)
class CoTrainConfig:
    """Co-training of several networks by every client.

    Attributes:
        networks: all (smallest, one drawn from the cache, largest), extremes (none drawn), largest or smallest alone.
        distillation: share of the smaller networks' loss that is distilled from the largest; 0 for none.
        temperature: of the distillation.
    """

    networks: CoTrainedNetworks = "all"
    distillation: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.distillation <= 1:
            raise UserError(f"cotrain.distillation is {self.distillation}; it must be from 0 to 1")
        if not self.temperature > 0:
            raise UserError(f"cotrain.temperature is {self.temperature}; it must be positive")
