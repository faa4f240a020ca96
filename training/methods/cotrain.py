"""Co-training (FEAST, 2026): in each step a client trains the smallest, a drawn and the largest network it can run.

A client receives its envelope, the slices of the largest cache entry that it can run, and sends it back once. What it
trains besides lies inside: entries of the cache, cut to the envelope choice by choice where they reach beyond it.
"""

from collections.abc import Sequence

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import intersection
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.config.methods import CoTrainConfig
from fedpareto.training.local_objective import CoTraining, LocalObjective, Standard
from fedpareto.training.methods.curriculum import runnable_entries
from fedpareto.training.methods.plans import WholeSupernet, equal_plan
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.runs.state import RunState


class CoTrain(WholeSupernet):
    """Trains the whole supernet, several networks a client.

    Args:
        ground: what to decide with.
        envelopes: the largest entry of every client.
        objectives: what every client trains it towards.
    """

    def __init__(
        self, ground: MethodContext, envelopes: Sequence[CacheEntry], objectives: Sequence[LocalObjective]
    ) -> None:
        super().__init__(ground)
        self._envelopes, self._objectives = envelopes, objectives

    @property
    def weight_by_examples(self) -> bool:
        """Updates weigh as many as the client's images."""
        return True

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``."""
        config = self._ground.config
        drawn = drawn_clients(config, state, available)
        envelopes = {client: self._envelopes[client] for client in drawn}
        return equal_plan(config, state, envelopes, {client: self._objectives[client] for client in drawn})


def cotrain(ground: MethodContext) -> CoTrain:
    """Return the method.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    settings, entries = ground.config.cotrain, ground.entries
    runnable = runnable_entries(entries, ground.clients, ground.config.client.batch)
    if settings.networks == "smallest":
        return CoTrain(ground, [entries[0]] * len(runnable), [Standard()] * len(runnable))
    envelopes = [able[-1] for able in runnable]
    # Clients of one envelope share what they do, however many there are.
    distinct = {entry.architecture: entry for entry in envelopes}
    shared = {
        architecture: _objective(ground.space, entries, entry, settings) for architecture, entry in distinct.items()
    }
    return CoTrain(ground, envelopes, [shared[entry.architecture] for entry in envelopes])


def _objective(
    space: SearchSpace, entries: Sequence[CacheEntry], envelope: CacheEntry, settings: CoTrainConfig
) -> LocalObjective:
    if settings.networks == "largest":
        return Standard()
    outer = envelope.architecture
    inside = [intersection(space, entry.architecture, outer) for entry in entries if entry.macs <= envelope.macs]
    smaller = [architecture for architecture in dict.fromkeys(inside) if architecture != outer]
    # The smallest is trained in every step: to draw it too would be to train it twice.
    drawn: tuple[Architecture, ...] = tuple(smaller[1:]) if settings.networks == "all" else ()
    return CoTraining(tuple(smaller[:1]), drawn, settings.distillation, settings.temperature)
