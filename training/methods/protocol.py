"""Protocol of training methods: a method assigns networks to clients, keeps a state, and names networks to evaluate."""

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
    """Context of a method's decisions, which does not change from round to round.

    Attributes:
        config: configuration of the run.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        clients: capability of every client.
        labels: every client's number of images of each class, shape (clients, classes); None where only the clients
            know.
    """

    config: RunConfig
    space: SearchSpace
    entries: Sequence[CacheEntry]
    clients: Sequence[Capability]
    labels: IntArray | None = None

    def settings(self, kind: type[T]) -> T:
        """Settings of the run's method, which are of the dataclass ``kind``.

        Raises:
            TypeError: they are of another dataclass.
        """
        found = getattr(self.config, self.config.method)
        if not isinstance(found, kind):
            raise TypeError(f"the settings of method {self.config.method} are {found!r}, no {kind.__name__}")
        return found


class Decision(NamedTuple):
    """Decision of a method after the evaluation of networks that it asked for.

    Attributes:
        state: state of the run from here on.
        adopted: branch whose weights the supernet takes over in its slices, if any.
    """

    state: RunState
    adopted: str | None = None


class Method(Protocol):
    """Method of federated training. All that changes from round to round is in the run's state."""

    @property
    def weight_by_examples(self) -> bool:
        """True if an update weighs as much as the client has images."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the supernet that a new run begins with, of freshly ``drawn`` tensors."""

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``: which of the ``available`` clients train which network."""

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with the method's own part of it after a merged round."""

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return the networks whose accuracy tells how well training goes, by ascending MACs."""

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return the results of the method, as texts of files in the run's folder by their names."""

    def branches(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the networks that have weights of their own after ``state``, by name; new ones inherit slices."""

    def networks_to_evaluate(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the networks to measure after this very round: branches by name, others as subnets of the supernet."""

    def after_evaluation(self, state: RunState, accuracies: Mapping[str, float]) -> Decision:
        """Return the decision after the ``networks_to_evaluate`` networks' accuracies on validation images."""


class SupernetMethod:
    """Base of methods that train nothing beside the supernet and search nothing while they do."""

    def start(self, drawn: Tensors) -> Tensors:
        """Return the tensors as they were drawn."""
        return drawn

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` as it is, as nothing else is kept."""
        del answers
        return state

    def branches(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return an empty mapping."""
        del state
        return {}

    def networks_to_evaluate(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return an empty mapping."""
        del state
        return {}

    def after_evaluation(self, state: RunState, accuracies: Mapping[str, float]) -> Decision:
        """Return the state as it is."""
        del accuracies
        return Decision(state)

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return an empty mapping."""
        del state
        return {}
