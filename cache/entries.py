"""Cache entries: architectures with their costs and fitness."""

import dataclasses
import functools
from itertools import pairwise

import numpy as np

from fedpareto.fitness.report import costs_and_fitness
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical, decode, encode
from fedpareto.supernet.space import SearchSpace

#: Entries of a cache where nobody says how many.
CACHE_ENTRIES = 60


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """An architecture with its costs and fitness.

    Attributes:
        architecture: the network.
        macs: multiply–accumulates of one image.
        params: trainable parameters.
        activation_bytes: peak memory of feature maps of one fp32 image.
        fitness: F.
        rho: effectiveness ρ.
    """

    architecture: Architecture
    macs: int
    params: int
    activation_bytes: int
    fitness: float
    rho: float


def make_entries(space: SearchSpace, genes: IntArray, settings: FitnessSettings) -> list[CacheEntry]:
    """Return the entries of N gene vectors, ordered by MACs (then fitness)."""
    if not len(genes):
        return []
    scores = score(space, canonical(space, genes), settings)
    entries = [
        CacheEntry(decode(space, vector), **costs_and_fitness(scores, index)) for index, vector in enumerate(genes)
    ]
    return sorted(entries, key=lambda entry: (entry.macs, entry.fitness))


@functools.lru_cache(maxsize=4096)
def make_entry(space: SearchSpace, architecture: Architecture) -> CacheEntry:
    """Return the entry of one architecture, scored with the space's own weights.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    return make_entries(space, encode(space, architecture)[None], space.fitness)[0]


def evenly_spaced(macs: IntArray, count: int) -> IntArray:
    """Return at most ``count`` indices of a front (ascending ``macs``), spread evenly over its MACs.

    One for each of ``count`` budgets from the first point to the last: the last point within it, which on a
    front is the fittest. Budgets that share a point leave room, which goes to the widest gaps.
    """
    if len(macs) <= count:
        return np.arange(len(macs))
    budgets = np.linspace(macs[0], macs[-1], count)
    chosen = set((np.searchsorted(macs, budgets, side="right") - 1).tolist())
    while len(chosen) < count:
        ordered = np.array(sorted(chosen))
        gaps = [(macs[high] - macs[low], low, high) for low, high in pairwise(ordered) if high > low + 1]
        _, low, high = max(gaps)
        middle = np.searchsorted(macs, (macs[low] + macs[high]) / 2)
        chosen.add(int(np.clip(middle, low + 1, high - 1)))
    return np.array(sorted(chosen))
