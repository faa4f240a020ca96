"""Experimental design: chooses the subnets whose measurement tells most about the worth of every choice.

- *Spread*: over all choices and the whole range of MACs.
- *Near*: a few choices away from the entries of the run's cache. A supernet is best at what it was trained on, and a
  sum over choices cannot say so of all networks at once.
- *Fittest*: what a search finds by the fitness learned so far. A search goes to the edge of what was measured, where a
  fitness errs; measured, its errors are learned from (active learning; Cohn, Ghahramani and Jordan, 1996).

The first two are greedy D-optimal designs: each next network is the one whose prediction is least certain given those
before it (Fedorov, "Theory of optimal experiments", 1972). Parts of the range of MACs take turns, so that all are
equally covered.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence

import numpy as np

from fedpareto.cache.entries import evenly_spaced
from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.cells import cells_chosen, cells_of, effects_of
from fedpareto.search.ranking.measuring.bands import Band, Subnet, pools_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical, decode, encode_all, gene_layout
from fedpareto.supernet.space import SearchSpace

#: Parts of the range of MACs.
PARTS = 8

#: Most choices in which a network near an entry differs from it, and draws for each network that is wanted.
_CHANGES, _DRAWS = 3, 50


@dataclasses.dataclass(frozen=True)
class Region:
    """The part of a search space that subnets are drawn from.

    Attributes:
        space: the search space.
        settings: the fitness whose ``ρ ≤ ρ0`` they meet.
        macs: the least MACs and the most.
    """

    space: SearchSpace
    settings: FitnessSettings
    macs: tuple[int, int]

    @property
    def parts(self) -> list[Band]:
        """Parts of the range of MACs, of equal ratio."""
        least, most = self.macs
        edges = [float(least), *np.geomspace(least, most, PARTS + 1)[1:-1].tolist(), float(most)]
        return [Band(low, high) for low, high in itertools.pairwise(edges)]

    def numbers(self, genes: IntArray) -> IntArray:
        """Return the number of the part that each of (N, genes) vectors lies in, (N,)."""
        ends = [part.least for part in self.parts[1:]]
        return np.searchsorted(ends, score(self.space, genes).macs, side="right").astype(np.int64)

    def subnets(self, genes: IntArray) -> list[Subnet]:
        """Return the subnets of gene vectors, (N, genes), each with the number of its part."""
        numbers = self.numbers(genes).tolist()
        return [Subnet(number, decode(self.space, vector)) for number, vector in zip(numbers, genes, strict=True)]

    def without(self, genes: IntArray, excluded: Collection[Architecture]) -> IntArray:
        """Return those of (N, genes) canonical vectors that are none of some architectures."""
        known = {vector.tobytes() for vector in encode_all(self.space, list(excluded))}
        return genes[[vector.tobytes() not in known for vector in genes]]

    def within(self, genes: IntArray) -> IntArray:
        """Return those of (N, genes) vectors with MACs in the range and ``ρ ≤ ρ0``."""
        scores = score(self.space, genes, self.settings)
        return genes[scores.feasible & (scores.macs >= self.macs[0]) & (scores.macs <= self.macs[1])]


def spread_subnets(
    region: Region, count: int, excluded: Collection[Architecture], generator: np.random.Generator
) -> list[Subnet]:
    """Choose ``count`` informative subnets from all parts of a region, none of them ``excluded``.

    Raises:
        UserError: there are too few networks.
    """
    pool = np.concatenate(pools_of(region.space, region.settings, region.parts, generator))
    return _chosen(region, pool, count, excluded)


def near_subnets(
    region: Region,
    entries: Sequence[Architecture],
    count: int,
    excluded: Collection[Architecture],
    generator: np.random.Generator,
) -> list[Subnet]:
    """Choose ``count`` informative subnets that differ from some cache entry in few choices or none.

    Raises:
        UserError: there are too few networks.
    """
    genes = encode_all(region.space, entries)
    changed = _changed(region.space, np.tile(genes, (1 + _DRAWS * count // len(genes), 1)), generator)
    pool = np.unique(canonical(region.space, np.concatenate([genes, changed])), axis=0)
    return _chosen(region, region.within(pool), count, excluded)


def fittest_subnets(
    region: Region,
    settings: FitnessSettings,
    count: int,
    excluded: Collection[Architecture],
    listener: ProgressListener = SILENT,
) -> list[Subnet]:
    """Choose at most ``count`` subnets of the frontier of a fitness, spread over the region's MACs.

    Raises:
        SpaceTooLargeError: the space is too large to be solved.
    """
    genes = region.within(exact_frontier(region.space, settings, listener=listener).genes)
    left = region.without(genes, excluded)
    return region.subnets(left[evenly_spaced(score(region.space, left).macs, count)]) if len(left) else []


def _chosen(region: Region, pool: IntArray, count: int, excluded: Collection[Architecture]) -> list[Subnet]:
    """Choose the ``count`` most informative subnets of a pool of canonical genes."""
    left = region.without(pool, excluded)
    if len(left) < count:
        least, most = region.macs
        raise UserError(
            f"{counted(len(left), 'random network')} of {region.space.name} were found from {least:,} to {most:,} "
            f"MACs, not {count}; ask for fewer {option('fit-subnets')}, or other {option('flops-min')} and "
            f"{option('flops-max')}"
        )
    rows = cells_chosen(region.space, left) @ effects_of(cells_of(region.space))
    return region.subnets(left[informative(rows, region.numbers(left), count)])


def _changed(space: SearchSpace, genes: IntArray, generator: np.random.Generator) -> IntArray:
    """Draw up to ``_CHANGES`` genes of each of (N, genes) vectors anew."""
    sizes = gene_layout(space).sizes
    drawn = generator.integers(0, sizes, size=genes.shape)
    order = generator.random(genes.shape).argsort(axis=1).argsort(axis=1)
    many: IntArray = generator.integers(1, _CHANGES + 1, size=(len(genes), 1))
    return np.where(order < many, drawn, genes)


def informative(rows: FloatArray, groups: IntArray, count: int) -> list[int]:
    """Return the indices of ``count`` of (N, columns) rows by greedy D-optimal design, groups taking turns.

    How uncertain a row's value is given the rows chosen is ``x·(XᵀX + I)⁻¹·x``; choosing the most uncertain one raises
    the determinant of ``XᵀX + I`` most.
    """
    inverse = np.eye(rows.shape[1])
    uncertain = np.einsum("np,np->n", rows, rows)
    free = np.ones(len(rows), dtype=np.bool_)
    chosen: list[int] = []
    turns = np.unique(groups)
    while len(chosen) < count:
        open_groups = [group for group in turns if free[groups == group].any()]
        for group in open_groups[: count - len(chosen)]:
            index = int(np.where(free & (groups == group), uncertain, -np.inf).argmax())
            direction = inverse @ rows[index]
            scale = 1 + uncertain[index]
            # The inverse of a matrix with one more row (Sherman and Morrison, 1950).
            uncertain = uncertain - (rows @ direction) ** 2 / scale
            inverse = inverse - np.outer(direction, direction) / scale
            free[index] = False
            chosen.append(index)
    return chosen
