"""What a training method decides: whom a round asks for what, what it keeps of the answers, what is measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fedpareto.cache.entries import Entry
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.weights import Tensors
from fedpareto.training.aggregation.answers import Answers, RoundPlan
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.state import RunState


@dataclasses.dataclass(frozen=True)
class Ground:
    """What methods decide with; none of it changes from round to round.

    Attributes:
        config: of the run.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        clients: what every client can run.
        labels: how many images of each class every client has, shape (clients, classes); None where only the clients
            know.
    """

    config: RunConfig
    space: SearchSpace
    entries: Sequence[Entry]
    clients: Sequence[Capability]
    labels: IntArray | None = None


class Measured(NamedTuple):
    """What a method makes of the networks it had measured.

    Attributes:
        state: of the run from here on.
        adopted: branch whose weights the supernet takes over in its slices, if any.
    """

    state: RunState
    adopted: str | None = None


class Method(Protocol):
    """A method of federated training. All that changes from round to round is in the run's state."""

    @property
    def by_examples(self) -> bool:
        """Whether a client's update weighs as many times as it has images."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the supernet that a new run begins with, of freshly ``drawn`` tensors."""

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``: which of the ``available`` clients train what."""

    def counted(self, state: RunState, answers: Answers) -> RunState:
        """Return ``state`` with what the method itself keeps of a merged round."""

    def probes(self, state: RunState) -> Sequence[Entry]:
        """Return the networks whose accuracy tells how far training is, by ascending MACs."""

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return what the method has found, as texts of files in the run's folder by their names."""

    def branches(self, state: RunState) -> Mapping[str, Entry]:
        """Return the networks that have weights of their own after ``state``, by name; new ones inherit slices."""

    def tested(self, state: RunState) -> Mapping[str, Entry]:
        """Return the networks to measure after this very round: branches by name, any others in the supernet."""

    def measured(self, state: RunState, accuracies: Mapping[str, float]) -> Measured:
        """Return what the accuracies of the ``tested`` networks on validation images lead to."""


class SupernetMethod:
    """What methods share that train nothing beside the supernet and search nothing while they do."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the tensors as they were drawn."""
        return drawn

    def counted(self, state: RunState, answers: Answers) -> RunState:
        """Return ``state``: nothing else is kept."""
        del answers
        return state

    def branches(self, state: RunState) -> Mapping[str, Entry]:
        """Return none."""
        del state
        return {}

    def tested(self, state: RunState) -> Mapping[str, Entry]:
        """Return none."""
        del state
        return {}

    def measured(self, state: RunState, accuracies: Mapping[str, float]) -> Measured:
        """Return the state as it is."""
        del accuracies
        return Measured(state)

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return none."""
        del state
        return {}
