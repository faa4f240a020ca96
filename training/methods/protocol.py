"""What a training method decides: whom a round asks for what, what it keeps of the answers, what is measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.state import RunState

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class MethodContext:
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
    entries: Sequence[CacheEntry]
    clients: Sequence[Capability]
    labels: IntArray | None = None

    def settings(self, kind: type[T]) -> T:
        """The settings of the run's method, which are of the dataclass ``kind``.

        Raises:
            TypeError: they are of another one.
        """
        found = getattr(self.config, self.config.method)
        if not isinstance(found, kind):
            raise TypeError(f"the settings of method {self.config.method} are {found!r}, no {kind.__name__}")
        return found


class Decision(NamedTuple):
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
    def weight_by_examples(self) -> bool:
        """Whether a client's update weighs as many times as it has images."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the supernet that a new run begins with, of freshly ``drawn`` tensors."""

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``: which of the ``available`` clients train what."""

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with what the method itself keeps of a merged round."""

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return the networks whose accuracy tells how far training is, by ascending MACs."""

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return what the method has found, as texts of files in the run's folder by their names."""

    def branches(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the networks that have weights of their own after ``state``, by name; new ones inherit slices."""

    def networks_to_evaluate(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the networks to measure after this very round: branches by name, any others in the supernet."""

    def after_evaluation(self, state: RunState, accuracies: Mapping[str, float]) -> Decision:
        """Return what the accuracies of the ``networks_to_evaluate`` networks on validation images lead to."""


class SupernetMethod:
    """What methods share that train nothing beside the supernet and search nothing while they do."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the tensors as they were drawn."""
        return drawn

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state``: nothing else is kept."""
        del answers
        return state

    def branches(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return none."""
        del state
        return {}

    def networks_to_evaluate(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return none."""
        del state
        return {}

    def after_evaluation(self, state: RunState, accuracies: Mapping[str, float]) -> Decision:
        """Return the state as it is."""
        del accuracies
        return Decision(state)

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return none."""
        del state
        return {}
