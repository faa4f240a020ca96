"""How far a run is: in rounds, or in what its clients have computed where that is limited.

A search that precedes the scheduled training counts no rounds: how many it takes is not known. Where compute is
limited the limit is that of the whole run, so that a run may end in its search; what it leaves is for the training.
"""

from typing import NamedTuple

from supernet.units import parse_quantity
from training.checkpoint import RunState
from training.config import SEARCHING_METHODS, RunConfig


class Extent(NamedTuple):
    """How much of a run is done, and how much there is to do."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """Share that is done."""
        return self.done / self.total if self.total > 0 else 1.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.total


def extent(config: RunConfig, state: RunState) -> Extent:
    """Return how far ``state`` is since its origin: rounds of all rounds, or MACs if ``compute`` ends the run."""
    if config.compute is None:
        return Extent(0 if state.origin is None else state.round - state.origin.round, config.rounds)
    before = 0 if state.origin is None else state.origin.compute
    return Extent(state.compute - before, parse_quantity(config.compute) - before)


def known_rounds(config: RunConfig) -> int | None:
    """Return how many rounds a run takes, or None if that shows only as it goes."""
    return config.rounds if config.compute is None and config.method not in SEARCHING_METHODS else None
