"""Random architectures that cover the whole range of MACs."""

import numpy as np

from fedpareto.cache.costs.limits import Limits
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.genes import decode, gene_layout, random_genes
from fedpareto.supernet.space import SearchSpace

_BATCH = 256
_MOST_BATCHES = 40


def ladder(space: SearchSpace, count: int, generator: np.random.Generator) -> IntArray:
    """Return (count, genes) starting points: random, each drawn around its own level of size.

    Uniform draws crowd around the middle of the MACs range; a level from 0 (all least) to 1 (all most),
    with noise on every gene, covers all of it.
    """
    most = gene_layout(space).sizes - 1
    level = np.linspace(0, 1, count)[:, None]
    noise = generator.normal(0, 0.25, size=(count, len(most))) * np.sin(np.pi * level)
    genes = np.rint(np.clip(level + noise, 0, 1) * most).astype(np.int64)
    # A tenth is uniform, so that no combination is out of reach.
    uniform = random_genes(space, count // 10, generator)
    genes[1 : 1 + len(uniform) * 10 : 10][: len(uniform)] = uniform
    return genes


def draw_within(space: SearchSpace, limits: Limits, generator: np.random.Generator) -> Architecture:
    """Return a random architecture within ``limits``; the fitness plays no part.

    Raises:
        BudgetError: none of ten thousand draws lies within the limits.
    """
    for _ in range(_MOST_BATCHES):
        genes = ladder(space, _BATCH, generator)
        within = np.flatnonzero((limits.violations(space, genes, score(space, genes)) <= 0).all(axis=0))
        if len(within):
            return decode(space, genes[generator.choice(within)])
    raise BudgetError(f"no random network of {space.name} lies within {limits}; widen the range of MACs")
