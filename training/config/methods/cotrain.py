"""Settings and description of the method ``cotrain``."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from fedpareto.training.config.bounds import bounded, check_bounds
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
        temperature: softmax temperature of the distillation.
    """

    networks: CoTrainedNetworks = "all"
    distillation: float = bounded(0.5, least=0, most=1)
    temperature: float = bounded(1.0, above=0)

    def __post_init__(self) -> None:
        check_bounds(self, "cotrain")


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
