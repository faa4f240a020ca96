"""FedPareto: networks drawn from the Pareto cache, small ones first, large ones more and more; all clients weigh alike.

A round of small networks costs little, and what they learn lies inside the large ones: their slices are prefixes. So
most draws of a run's beginning are small, and at its end most are large. The clients of a round draw from different
parts of the distribution (stratified sampling), so that nearly every round has small and large ones. The
supernet begins as its smallest network: what only larger ones have adds nothing until it has learned to.
Which of this gained how much is in ``docs/recipe.md``.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.networks.nesting import nested_start
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.config.methods import FedParetoConfig
from fedpareto.training.methods.curriculum import runnable_entries
from fedpareto.training.methods.plans import WholeSupernet, equal_plan
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.randomness import numpy_stream
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState


class FedPareto(WholeSupernet):
    """Trains the whole supernet, one network a client.

    Args:
        ground: what to decide with.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """

    def __init__(self, ground: MethodContext) -> None:
        super().__init__(ground)
        self._runnable = runnable_entries(ground.entries, ground.clients, ground.config.client.batch)

    @property
    def weight_by_examples(self) -> bool:
        """Whether a client's update weighs as many times as it has images."""
        return self._ground.config.server.weight_by_examples

    def start(self, drawn: Tensors) -> Tensors:
        """Return the tensors, with zeros where only larger networks than the smallest read them."""
        return nested_start(self._ground.space, drawn) if self._ground.config.fedpareto.nested_start else drawn

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``."""
        config = self._ground.config
        drawn = drawn_clients(config, state, available)
        power = power_at(config.fedpareto, extent(config, state).share)
        generator = numpy_stream(config.seed, "curriculum", state.round + 1)
        entries = stratified_draws([self._runnable[client] for client in drawn], power, generator)
        plan = equal_plan(config, state, dict(zip(drawn, entries, strict=True)))
        return dataclasses.replace(plan, power=power)


def power_at(settings: FedParetoConfig, share: float) -> float:
    """Return p of draws in proportion to MACs^−p, once a ``share`` of the run is done: a line from first to last."""
    return settings.power_first + (settings.power_last - settings.power_first) * share


def stratified_draws(
    runnable: Sequence[Sequence[CacheEntry]], power: float, generator: np.random.Generator
) -> list[CacheEntry]:
    """Return one entry for each of m clients, each from another m-th of its own distribution.

    Every client draws each of its entries with a probability in proportion to MACs^−``power``, as if it drew alone.

    Args:
        runnable: the entries that each client can run, by ascending MACs.
        power: p.
        generator: of the draws.
    """
    many = len(runnable)
    places = (generator.permutation(many) + generator.random(many)) / many
    return [_at(entries, power, place) for entries, place in zip(runnable, places, strict=True)]


def draw_shares(entries: Sequence[CacheEntry], power: float) -> FloatArray:
    """Return the probability of every entry, in proportion to MACs^−``power``; shape (entries,)."""
    # Relative to the largest, so that no power overflows.
    weights = (np.array([entry.macs for entry in entries], dtype=float) / entries[-1].macs) ** -power
    shares: FloatArray = weights / weights.sum()
    return shares


def _at(entries: Sequence[CacheEntry], power: float, place: float) -> CacheEntry:
    """Return the entry at a place from 0 to 1 in the cumulative distribution."""
    reached = np.cumsum(draw_shares(entries, power))
    return entries[min(int(np.searchsorted(reached, place, side="right")), len(entries) - 1)]
