"""Predictor-free search: the architecture of highest analytic fitness within limits. No torch, no training."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache.entries import Entry, make_entries
from cache.limits import Limits
from cache.nsga2 import Nsga2Settings, search_front
from fitness.score import score
from supernet.genes import encode_all
from supernet.space import FitnessSettings, SearchSpace

DEFAULT_SETTINGS = Nsga2Settings(population=100, generations=100)

#: The second search looks at networks of at least this share of the MACs of the first one's best.
_NARROW = 0.75


def search(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    known: Sequence[Entry] = (),
    settings: Nsga2Settings = DEFAULT_SETTINGS,
) -> Entry:
    """Return the fittest architecture found within ``limits`` and ``ρ ≤ ρ0``.

    A constrained NSGA-II search warm-started from the ``known`` entries, those within the limits first, then
    a second one among networks of nearly as many MACs as the best; it never returns a worse one than the
    best of those known. MACs stay an objective beside the fitness: smaller networks on the way keep the
    population diverse, where fitness alone converges too early.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    broad = search_front(space, fitness, limits, settings, _best_first(space, fitness, limits, known))
    # Where limits other than MACs bind, the optimum has fewer MACs than the budget: look below what was found.
    least = round(_NARROW * broad.objectives[-1, 1])
    narrow = search_front(space, fitness, dataclasses.replace(limits, min_macs=least), settings, broad.genes[::-1])
    (entry,) = make_entries(space, narrow.genes[-1:], fitness)
    return entry


def _best_first(
    space: SearchSpace, fitness: FitnessSettings, limits: Limits, known: Sequence[Entry]
) -> NDArray[np.int64]:
    """Return the genes of known entries: within limits before outside, fitter before less fit."""
    genes = encode_all(space, [entry.architecture for entry in known])
    if not len(genes):
        return genes
    # The entries' own fitness may be of other weights than those asked for.
    scores = score(space, genes, fitness)
    excess = limits.violations(scores).max(axis=0, initial=0.0)
    return genes[np.lexsort((-scores.fitness, np.maximum(excess, 0)))]
