"""Evolutionary search with NSGA-II, for spaces too large for the exact solver; its answers are not certified."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.nsga2.solver import Nsga2Settings, search_front
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace

DEFAULT_SETTINGS = Nsga2Settings(population=100, generations=100)

#: The second search looks at networks of at least this share of the MACs of the first one's best.
_NARROW = 0.75


def evolve(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    known: IntArray | None = None,
    settings: Nsga2Settings = DEFAULT_SETTINGS,
) -> CacheEntry:
    """Search the fittest architecture within ``limits`` and ``ρ ≤ ρ0``.

    A constrained NSGA-II search warm-started from ``known`` gene vectors (N, genes), those within the limits
    first, then a second one among networks of nearly as many MACs as the best. The result is never worse than the
    best known one. MACs stay an objective beside the fitness: smaller networks keep the population diverse, where
    fitness alone converges too early.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    broad = search_front(space, fitness, limits, settings, _best_first(space, fitness, limits, known))
    # Where limits other than MACs bind, the optimum has fewer MACs than the budget: look below what was found.
    least = round(_NARROW * broad.objectives[-1, 1])
    narrow = search_front(space, fitness, dataclasses.replace(limits, min_macs=least), settings, broad.genes[::-1])
    (entry,) = make_entries(space, narrow.genes[-1:], fitness)
    return entry


def front_alone(
    space: SearchSpace, fitness: FitnessSettings, listener: ProgressListener = SILENT
) -> tuple[IntArray, NDArray[np.float64]]:
    """Return MACs and fitness of the front that NSGA-II finds without any known network."""
    front = search_front(space, fitness, Limits(), DEFAULT_SETTINGS, listener=listener)
    return front.objectives[:, 1].astype(np.int64), -front.objectives[:, 0]


def _best_first(
    space: SearchSpace, fitness: FitnessSettings, limits: Limits, known: IntArray | None
) -> IntArray | None:
    """Sort known gene vectors: those within the limits first, then by descending fitness."""
    if known is None or not len(known):
        return None
    scores = score(space, known, fitness)
    excess = limits.violations(space, known, scores).max(axis=0, initial=0.0)
    best_first: IntArray = known[np.lexsort((-scores.fitness, np.maximum(excess, 0)))]
    return best_first
