"""What the package knows of the method ``superfednas``, which has no settings of its own."""

import dataclasses
from typing import TYPE_CHECKING

from fedpareto.training.config.methods.deepfednas import DEEPFEDNAS, nothing_drawn
from fedpareto.training.config.methods.spec import MethodSpec

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig


def _normal(config: "RunConfig", entries: int | None) -> "RunConfig":
    del entries
    return config if nothing_drawn(config) is None else dataclasses.replace(config, method=DEEPFEDNAS.name)


SUPERFEDNAS = MethodSpec(
    name="superfednas",
    summary="others drawn at random from the space; searched by the fitness, too, not by SuperFedNAS's predictor",
    factory="fedpareto.training.methods.superfednas:superfednas",
    private=True,
    also_reads=("server.largest_weight", "server.weight_by_examples"),
    coincides=nothing_drawn,
    normal=_normal,
)
