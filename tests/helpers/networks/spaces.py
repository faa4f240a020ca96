"""Spaces small enough to list all their networks, one of each family, and that list."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.limits import Limits
from fedpareto.fitness.score import Scores, score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec
from helpers.runs.federation import micro_space

#: Some thousand gene vectors each.
SMALL = micro_space(name="small", resolutions=(8, 12))
SMALL_RESNET = SearchSpace(
    name="small-resnet",
    family="resnet",
    stem=StemSpec(16, multipliers=(0.5, 1.0)),
    stages=(StageSpec(32), StageSpec(64, stride=2)),
    resolutions=(8, 12),
    depths=(1, 2, 3),
    expands=(0.25, 0.5),
    width_multipliers=(0.5, 0.75, 1.0),
    fitness=FitnessSettings(effectiveness_weight=500.0, max_effectiveness=0.13),
)

#: The same with one ratio a stage, and deeper stages, as FEAST's.
SHARED_RATIOS = dataclasses.replace(SMALL_RESNET, name="shared-ratios", depths=(1, 2, 5), expands_per="stage")

#: Few genes, and so many ratios that the exact solver refuses it: 3,500² pairs of blocks.
VAST = SearchSpace(
    name="vast",
    family="resnet",
    stem=StemSpec(8),
    stages=(StageSpec(28_000, stride=2),),
    resolutions=(8,),
    depths=(1, 2),
    expands=tuple(number / 3500 for number in range(1, 3501)),
    width_multipliers=(1.0,),
    fitness=FitnessSettings(max_effectiveness=5.0),
)


class Listed(NamedTuple):
    """All gene vectors of a space with their scores."""

    space: SearchSpace
    genes: IntArray
    scores: Scores

    def within(self, limits: Limits) -> NDArray[np.bool_]:
        """Return which of them are within limits and the bound on ρ."""
        kept = self.scores.feasible & (self.scores.macs <= (limits.macs or np.inf))
        kept &= self.scores.params <= (limits.params or np.inf)
        kept &= self.scores.macs >= (limits.min_macs or 0)
        for extra in limits.extras:
            kept &= extra.of(self.space, self.genes) <= extra.limit
        return kept

    def best(self, limits: Limits) -> float:
        """Return the highest fitness within limits."""
        return float(self.scores.fitness[self.within(limits)].max())


@functools.cache
def listed(space: SearchSpace, fitness: FitnessSettings | None = None) -> Listed:
    """Return everything a space holds, scored with its own weights unless others are given."""
    sizes = gene_layout(space).sizes
    genes = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    return Listed(space, genes, score(space, genes, fitness))
