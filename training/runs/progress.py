"""How far a run is: in rounds, or in what its clients have computed where that is limited.

A search that precedes the scheduled training counts no rounds: how many it takes is not known. Where compute is
limited the limit is that of the whole run, so that a run may end in its search; what it leaves is for the training.
Compute comes in whole steps of whole clients: a run that has all but half a per cent of it is finished.
"""

from typing import NamedTuple

from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.state import RunState

#: Share of a run's compute that is not worth another round.
_NEGLIGIBLE = 0.005


class Progress(NamedTuple):
    """How much of a run is done, and how much there is to do.

    Attributes:
        done: rounds, or multiply–accumulates.
        total: of the same.
        negligible: so much may be left of a finished run.
    """

    done: int
    total: int
    negligible: int = 0

    @property
    def share(self) -> float:
        """Share that is done; 1 of a finished run."""
        return 1.0 if self.finished else self.done / self.total

    @property
    def left(self) -> int:
        """What there is still to do."""
        return max(0, self.total - self.done)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.left <= self.negligible


def extent(config: RunConfig, state: RunState) -> Progress:
    """Return how far ``state`` is since its origin: rounds of all rounds, or MACs if ``compute`` ends the run."""
    if config.compute is None:
        return Progress(0 if state.origin is None else state.round - state.origin.round, config.rounds)
    before = 0 if state.origin is None else state.origin.compute
    limit = parse_quantity(config.compute)
    return Progress(state.compute - before, limit - before, int(_NEGLIGIBLE * limit))


def known_rounds(config: RunConfig) -> int | None:
    """Return how many rounds a run takes, or None if that shows only as it goes."""
    return config.rounds if config.compute is None and not config.spec.searches_first else None
