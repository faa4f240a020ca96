"""Settings and description of the method ``decnas``."""

import dataclasses
from typing import TYPE_CHECKING

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.config.bounds import bounded, check_bounds
from fedpareto.training.config.methods.spec import MethodSpec

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig


@dataclasses.dataclass(frozen=True)
class DecNasConfig:
    """Search that shrinks one network by candidates that groups of clients train.

    Attributes:
        budget: MACs it is shrunk to, e.g. 60M; must be named.
        architecture: JSON file of the network to start from; the largest of the space when left out.
        step: share of its MACs that the first iteration takes off.
        decay: factor of the step from one iteration to the next.
        drop_after: rounds of an iteration after which candidates below the median accuracy are dropped.
        least_rounds: rounds of a candidate before its gain may stop it.
        most_rounds: rounds of a candidate at the most.
        gain: accuracy that two rounds must gain a candidate for it to go on.
        lr: learning rate of the search; the learning rate of the first round of fine-tuning when left out.
    """

    budget: str | None = None
    architecture: str | None = None
    step: float = bounded(0.025, above=0, below=1)
    decay: float = bounded(0.96, above=0, most=1)
    drop_after: int = bounded(2, least=1)
    least_rounds: int = bounded(3, least=1)
    most_rounds: int = 10
    gain: float = bounded(0.005, least=0)
    lr: float | None = bounded(None, above=0)

    def __post_init__(self) -> None:
        if self.budget is not None:
            parse_quantity(self.budget)
        check_bounds(self, "decnas")
        if self.most_rounds < self.least_rounds:
            raise UserError(
                f"decnas.most_rounds is {self.most_rounds}; it must be at least the {self.least_rounds} of least_rounds"
            )


def _check(config: "RunConfig") -> None:
    if config.decnas.budget is None:
        raise UserError(f"method decnas shrinks a network to a budget; name one, e.g. {option('decnas.budget', '60M')}")
    if config.engine == "flower":
        raise UserError(
            f"method decnas groups clients by labels that only simulated ones tell; use "
            f"{option('engine', 'in-process')}"
        )
    if config.clients.data == "pooled":
        raise UserError("method decnas groups clients, of which clients.data pooled leaves one; use independent")


def _length(config: "RunConfig", scheduled: str) -> str:
    return f"a search down to {config.decnas.budget} MACs, then {scheduled}"


DECNAS = MethodSpec(
    name="decnas",
    summary="one network, shrunk to a budget by candidates on groups of clients, then trained for the rounds",
    factory="fedpareto.training.methods.decnas.method:decnas",
    settings=DecNasConfig,
    single_network=True,
    searches_first=True,
    check=_check,
    files={"architecture": ".json"},
    length=_length,
    report="fedpareto.training.methods.decnas.accounting:print_accounting",
)
