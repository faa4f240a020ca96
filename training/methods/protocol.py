"""What a training method decides: whom a round asks for what, what it keeps of the answers, what is measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from cache.entries import Entry
from supernet.space import SearchSpace
from training.answers import Answers, RoundPlan
from training.capabilities import Capability
from training.checkpoint import RunState
from training.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Ground:
    """What methods decide with; none of it changes from round to round.

    Attributes:
        config: of the run.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        clients: what every client can run.
    """

    config: RunConfig
    space: SearchSpace
    entries: Sequence[Entry]
    clients: Sequence[Capability]


class Method(Protocol):
    """A method of federated training. All that changes from round to round is in the run's state."""

    @property
    def by_examples(self) -> bool:
        """Whether a client's update weighs as many times as it has images."""

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``: which of the ``available`` clients train what."""

    def counted(self, state: RunState, answers: Answers) -> RunState:
        """Return ``state`` with what the method itself keeps of a merged round."""

    def probes(self, state: RunState) -> Sequence[Entry]:
        """Return the networks whose accuracy tells how far training is, by ascending MACs."""

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return what the method has found, as texts of files in the run's folder by their names."""
