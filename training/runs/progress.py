"""Progress of a run: in rounds, or in the compute of its clients where that is limited.

A search before the scheduled training counts no rounds, as their number is not known. A limit on compute is for the
whole run, so a run may end in its search; the compute that the search leaves is for the training. Compute comes in
whole steps of whole clients: a run that has used all but half a per cent of it is finished.
"""

from typing import NamedTuple

from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.state import RunState

#: Share of a run's compute that is not worth another round.
_NEGLIGIBLE = 0.005


class Progress(NamedTuple):
    """Progress of a run: the amount that is done, and the amount in all.

    Attributes:
        done: rounds done, or multiply–accumulates.
        total: rounds or multiply–accumulates in all.
        negligible: amount that may be left of a finished run.
    """

    done: int
    total: int
    negligible: int = 0

    @property
    def share(self) -> float:
        """Share that is done; 1 for a finished run."""
        return 1.0 if self.finished else self.done / self.total

    @property
    def left(self) -> int:
        """Amount that is left to do."""
        return max(0, self.total - self.done)

    @property
    def finished(self) -> bool:
        """True if nothing is left to do."""
        return self.left <= self.negligible


def extent(config: RunConfig, state: RunState) -> Progress:
    """Return the progress of ``state`` since its origin: in rounds, or in MACs if ``compute`` ends the run."""
    if config.compute is None:
        return Progress(0 if state.origin is None else state.round - state.origin.round, config.rounds)
    before = 0 if state.origin is None else state.origin.compute
    limit = parse_quantity(config.compute)
    return Progress(state.compute - before, limit - before, int(_NEGLIGIBLE * limit))


def known_rounds(config: RunConfig) -> int | None:
    """Return the number of rounds of a run; None if it is not known beforehand."""
    return config.rounds if config.compute is None and not config.spec.searches_first else None
