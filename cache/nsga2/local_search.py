"""Pareto local search: improves a front by trying the networks one small change away from its points.

Paquete, Chiarandini and Stützle, "Pareto local optimum sets in the biobjective traveling salesman problem" (2004).
"""

import numpy as np

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace


def trades(space: SearchSpace) -> IntArray:
    """Return (moves, genes): each unit a step up or down, and each unit a step up for another a step down.

    Choices are ordered by cost, so a trade moves capacity and leaves MACs about where they were.
    """
    steps = np.concatenate([exchange_units(space), np.zeros((1, len(gene_layout(space).sizes)), dtype=np.int64)])
    moves = (steps[:, None] - steps[None, :]).reshape(-1, steps.shape[1])
    return np.unique(moves[moves.any(axis=1)], axis=0)


def neighbours(space: SearchSpace, genes: IntArray, moves: IntArray) -> IntArray:
    """Return the vectors one move away from any of (N, genes); moves stop at the first and last choice."""
    moved = (genes[:, None] + moves[None, :]).reshape(-1, genes.shape[1])
    clipped: IntArray = np.clip(moved, 0, gene_layout(space).sizes - 1)
    return clipped


def exchange_units(space: SearchSpace) -> IntArray:
    """Return (units, genes): 1 where a gene belongs to the unit. Genes with one choice are in none."""
    layout = gene_layout(space)
    free = layout.sizes > 1
    genes = len(layout.sizes)
    groups = [np.array([gene]) for gene in range(genes)] + [*layout.kernel, *layout.expand]
    units = np.zeros((len(groups), genes), dtype=np.int64)
    for row, group in enumerate(groups):
        units[row, group] = 1
    units &= free
    return np.unique(units[units.any(axis=1)], axis=0)
