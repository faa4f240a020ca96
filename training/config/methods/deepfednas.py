"""What a user can set of the method ``deepfednas``, and what the package knows of it."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from fedpareto.training.config.methods.spec import MethodSpec, ReadWhen

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig


CacheDraw = Literal["balanced", "uniform"]

#: Clients a round of which one has the largest network and one the smallest, so that nothing is left to draw.
NOTHING_DRAWN = 2


@dataclasses.dataclass(frozen=True)
class DeepFedNasConfig:
    """Networks drawn from the cache.

    Attributes:
        draw: balanced (in inverse proportion to their MACs: all get the same compute) or uniform (as published).
    """

    draw: CacheDraw = "balanced"


def nothing_drawn(config: "RunConfig") -> str | None:
    """Why ``deepfednas`` and ``superfednas`` compute the same; None if they do not."""
    if config.clients.per_round != NOTHING_DRAWN:
        return None
    return (
        "with clients.per_round 2 one client has the largest network and one the smallest, and none draws: "
        "deepfednas and superfednas are one and the same"
    )


def _normal(config: "RunConfig", entries: int | None) -> "RunConfig":
    # One entry is drawn in either way.
    return dataclasses.replace(config, deepfednas=DeepFedNasConfig()) if entries == 1 else config


DEEPFEDNAS = MethodSpec(
    name="deepfednas",
    summary="the cache's largest and smallest in every round, others drawn",
    factory="fedpareto.training.methods.deepfednas:deepfednas",
    settings=DeepFedNasConfig,
    private=True,
    before={"deepfednas.draw": "uniform"},
    also_reads=("server.largest_weight", "server.weight_by_examples"),
    read_when={
        "draw": ReadWhen(
            lambda config: config.clients.per_round != NOTHING_DRAWN,
            "with more or less than 2 clients a round, as one of 2 has the largest network and one the smallest",
        )
    },
    coincides=nothing_drawn,
    normal=_normal,
)
