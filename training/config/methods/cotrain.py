"""What a user can set of the method ``cotrain``, and what the package knows of it."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.methods.spec import MethodSpec, ReadWhen

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig


CoTrainedNetworks = Literal["all", "extremes", "largest", "smallest"]


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


def _mixes(config: "RunConfig") -> bool:
    return config.cotrain.networks in ("all", "extremes")


def _normal(config: "RunConfig", entries: int | None) -> "RunConfig":
    networks = config.cotrain.networks
    if entries == 1:
        networks = "largest"
    if entries == 2 and networks == "all":
        # The smallest and the largest are trained anyway: there is no third to draw.
        networks = "extremes"
    return dataclasses.replace(config, cotrain=dataclasses.replace(config.cotrain, networks=networks))


COTRAIN = MethodSpec(
    name="cotrain",
    summary="several networks a client in every step",
    factory="fedpareto.training.methods.cotrain:cotrain",
    settings=CoTrainConfig,
    read_when={
        "temperature": ReadWhen(
            lambda config: _mixes(config) and config.cotrain.distillation > 0,
            "with cotrain.networks all or extremes and a positive cotrain.distillation",
        ),
        "distillation": ReadWhen(_mixes, "with cotrain.networks all or extremes"),
    },
    normal=_normal,
)
