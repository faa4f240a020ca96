"""Objectives of a multi-objective search: high fitness and few MACs, within limits, for many networks at once."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.limits import Limits
from fedpareto.fitness.score import effectiveness_bound, score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Objectives:
    """Fitness to maximise and MACs to minimise, within limits.

    Attributes:
        space: the search space.
        settings: weights of the fitness, and the bound on its effectiveness ρ.
        limits: limits on the costs of networks.
    """

    space: SearchSpace
    settings: FitnessSettings
    limits: Limits

    def of(self, genes: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (−fitness, MACs) of gene vectors (N, genes), (N, 2), and their excess over the bounds.

        The excess, (N, 1 + limits), is that of ρ over ρ0 and the relative one of every limit; up to 0 is within.
        """
        scores = score(self.space, genes, self.settings)
        rho_excess = (scores.rho - effectiveness_bound(self.settings))[:, None]
        excess = np.concatenate([rho_excess, self.limits.violations(self.space, genes, scores).T], axis=1)
        return np.stack([-scores.fitness, scores.macs.astype(np.float64)], axis=1), excess

    def feasible(self, genes: IntArray) -> tuple[IntArray, NDArray[np.float64]]:
        """Return the feasible ones of (N, genes) vectors, and their (−fitness, MACs), (M, 2)."""
        objectives, excess = self.of(genes)
        kept = (excess <= 0).all(axis=1)
        return genes[kept], objectives[kept]
