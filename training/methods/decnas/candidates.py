"""Candidates of a search: networks that reach a target of MACs by lowering one dimension of one stage (NetAdapt).

A dimension is lowered choice by choice until the network is within the target, so the target is met to within one step
of the space's choices. Each block has its own expand ratio and kernel. There the largest in the stage is lowered, and
among equal ones that of the last block, so that stages stay even and shrink from their end. Stem and resolution stay.
A candidate is a slice of the current network, so it inherits that network's weights.

NetAdapt: Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications" (2018).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import canonical, decode, encode, gene_layout
from fedpareto.supernet.space import SearchSpace

Dimension = Literal["width", "depth", "expand", "kernel"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Candidate: a network that differs from the current one in one dimension of one stage.

    Attributes:
        stage: the stage, from 0.
        dimension: dimension of the stage that was lowered.
        entry: the network with its costs.
    """

    stage: int
    dimension: Dimension
    entry: CacheEntry

    @property
    def name(self) -> str:
        """Name of the candidate in files and reports, unique among the candidates for one target."""
        return f"stage{self.stage}-{self.dimension}"


def candidates(space: SearchSpace, current: Architecture, target: int) -> list[Candidate]:
    """Return every candidate of at most ``target`` MACs, by stage and dimension.

    A dimension that does not reach the target by itself has no candidate.

    Raises:
        ArchitectureError: the current network is not in the space.
    """
    genes = encode(space, current)
    found = []
    for stage in range(len(space.stages)):
        for dimension in get_args(Dimension):
            for lowered in lowerings(space, genes, stage, dimension):
                if _macs(space, lowered) <= target:
                    found.append(Candidate(stage, dimension, make_entry(space, decode(space, lowered))))
                    break
    return found


def nearest_candidates(
    space: SearchSpace, current: CacheEntry, target: int, allowed: Callable[[Candidate], bool]
) -> tuple[int, list[Candidate]]:
    """Return the target and its ``allowed`` candidates; if it has none, the next target that has some, with them.

    Each next target asks for half the reduction, down to a single MAC, which any lowered choice meets. The list is
    empty only if no choice can be lowered, or no candidate is allowed.
    """
    while target < current.macs:
        found = [candidate for candidate in candidates(space, current.architecture, target) if allowed(candidate)]
        if found:
            return target, found
        target = current.macs - (current.macs - target) // 2
    return target, []


def least_macs(space: SearchSpace, start: Architecture) -> int:
    """Return the least MACs that lowering ``start`` can reach: those with all its stages at their least."""
    layout, genes = gene_layout(space), encode(space, start)
    least = genes * 0
    for kept in (layout.resolution, layout.stem):
        least[kept] = genes[kept]
    return _macs(space, least)


def lowerings(space: SearchSpace, genes: IntArray, stage: int, dimension: Dimension) -> Iterator[IntArray]:
    """Yield the canonical genes of networks whose ``dimension`` of a stage is lowered further, one choice a step."""
    while True:
        positions = _positions(space, genes, stage, dimension)
        largest = max(positions, key=lambda position: (genes[position], position))
        if not genes[largest]:
            return
        genes = genes.copy()
        genes[largest] -= 1
        genes = canonical(space, genes)[0]
        yield genes


def _positions(space: SearchSpace, genes: IntArray, stage: int, dimension: Dimension) -> list[int]:
    """Return the positions of the genes of a stage's dimension; those of its blocks are in their order."""
    layout = gene_layout(space)
    if dimension in ("width", "depth"):
        return [int(getattr(layout, dimension)[stage])]
    depth = space.depths[genes[layout.depth[stage]]]
    slots: IntArray = getattr(layout, dimension)[stage, :depth]
    return [int(position) for position in slots]


def _macs(space: SearchSpace, genes: IntArray) -> int:
    return int(score(space, genes).macs[0])
