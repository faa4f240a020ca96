"""How far a run is: in rounds, or in what its clients have computed where that is limited."""

from typing import NamedTuple

from supernet.units import parse_quantity
from training.checkpoint import RunState
from training.config import RunConfig


class Extent(NamedTuple):
    """How much of a run is done, and how much there is to do."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """Share that is done."""
        return self.done / self.total

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.total


def extent(config: RunConfig, state: RunState) -> Extent:
    """Return how far ``state`` is: rounds of all rounds, or MACs of all MACs if ``compute`` ends the run."""
    if config.compute is None:
        return Extent(state.round, config.rounds)
    return Extent(state.compute, parse_quantity(config.compute))
