"""What a user can set of the method ``fedpareto``, and what the package knows of it."""

import dataclasses
from typing import TYPE_CHECKING

from fedpareto.supernet.common.errors import UserError
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
        power_last: p that the last rounds come up to; between them it is a line. 1 gives all entries the
            same compute, 0 draws all alike, and below 0 the large ones are drawn most.
        nested_start: begin with a supernet in which what only larger networks have adds nothing yet, so that all
            compute what the smallest does.
    """

    power_first: float = 4.0
    power_last: float = -1.0
    nested_start: bool = True

    def __post_init__(self) -> None:
        for name in ("power_first", "power_last"):
            if not -_LARGEST_POWER <= getattr(self, name) <= _LARGEST_POWER:
                raise UserError(
                    f"fedpareto.{name} is {getattr(self, name)}; it must be from -{_LARGEST_POWER:g} to "
                    f"{_LARGEST_POWER:g}"
                )


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
