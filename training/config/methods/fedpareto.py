"""Settings and description of the method ``fedpareto``."""

import dataclasses
from typing import TYPE_CHECKING

from fedpareto.training.config.bounds import bounded, check_bounds
from fedpareto.training.config.methods.spec import MethodSpec, ReadWhen

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig


#: Draws in proportion to MACs^∓p of a larger p are of one entry all but always.
_LARGEST_POWER = 20.0


@dataclasses.dataclass(frozen=True)
class FedParetoConfig:
    """Networks drawn from the cache, small ones first.

    Attributes:
        power_first: p of the first round, whose clients draw entries in proportion to MACs^−p.
        power_last: p at the end of the run, which p reaches on a line from power_first. 1 gives all entries the
            same compute, 0 draws all entries alike, and below 0 large entries are drawn most.
        nested_start: begin with a supernet whose weights outside the smallest network add nothing yet, so that all
            networks compute the same as the smallest.
    """

    power_first: float = bounded(4.0, least=-_LARGEST_POWER, most=_LARGEST_POWER)
    power_last: float = bounded(-1.0, least=-_LARGEST_POWER, most=_LARGEST_POWER)
    nested_start: bool = True

    def __post_init__(self) -> None:
        check_bounds(self, "fedpareto")


def _normal(config: "RunConfig", entries: int | None) -> "RunConfig":
    if entries != 1:
        return config
    # One entry is drawn whatever the power.
    return dataclasses.replace(config, fedpareto=FedParetoConfig(nested_start=config.fedpareto.nested_start))


FEDPARETO = MethodSpec(
    name="fedpareto",
    summary="one network a client, drawn from the cache, small ones first",
    factory="fedpareto.training.methods.fedpareto:FedPareto",
    settings=FedParetoConfig,
    private=True,
    defaults={"client.logit_adjustment": 1.0},
    also_reads=("server.weight_by_examples",),
    read_when={
        "nested_start": ReadWhen(lambda config: config.init is None, "without init, which is another beginning")
    },
    normal=_normal,
)
