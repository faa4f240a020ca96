"""Gene vectors: architectures encoded as integer vectors, for optimisers only.

A gene vector holds the index of every choice: resolution, stem width, then for each stage its width, its
depth and, for each of its block slots, kernel and expand; where the blocks of a stage share their expand ratio,
it comes once, with the first slot. Genes of inactive slots have no meaning; the *canonical* form sets them to 0
and every expand ratio to the smallest that gives the same hidden width, so that two canonical vectors are equal
exactly when their networks are.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.blocks import LAYOUTS
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.space import SearchSpace


class GeneLayout(NamedTuple):
    """Layout of a gene vector: the position of each choice, and the number of its values.

    ``width`` and ``depth`` hold one position a stage, ``kernel`` and ``expand`` one row a stage of one
    position a block slot: in ``expand`` all the same where a stage's blocks share their ratio.
    """

    sizes: IntArray
    resolution: int
    stem: int
    width: IntArray
    depth: IntArray
    kernel: IntArray
    expand: IntArray


class Choices(NamedTuple):
    """Decoded values of N gene vectors, as arrays whose last axis has length N.

    ``width``, ``depth`` and ``multiplier`` are (stages, N); ``kernel``, ``expand`` and ``active``
    (stages, slots, N).
    """

    resolution: IntArray
    stem: IntArray
    width: IntArray
    multiplier: NDArray[np.float64]
    depth: IntArray
    kernel: IntArray
    expand: NDArray[np.float64]
    active: NDArray[np.bool_]


@functools.lru_cache(maxsize=64)
def gene_layout(space: SearchSpace) -> GeneLayout:
    """Return the positions and sizes of the genes of ``space``."""
    stages, slots = len(space.stages), np.arange(space.max_depth, dtype=np.int64)
    shared = space.expands_per == "stage"
    # Within a stage: width, depth, then the slots' kernels and expands.
    kernels = 2 + slots + (slots > 0) if shared else 2 + 2 * slots
    expands = np.full_like(slots, 3) if shared else kernels + 1
    per_stage = 1 + int(max(kernels[-1], expands[-1]))
    first = 2 + per_stage * np.arange(stages, dtype=np.int64)
    kernel, expand = first[:, None] + kernels, first[:, None] + expands
    sizes = np.empty(2 + per_stage * stages, dtype=np.int64)
    sizes[:2] = len(space.resolutions), len(space.stem_choices)
    sizes[first] = [len(widths) for widths in space.width_choices]
    sizes[first + 1] = len(space.depths)
    sizes[kernel] = len(space.kernels)
    sizes[expand] = len(space.expands)
    return GeneLayout(sizes, 0, 1, first, first + 1, kernel, expand)


def as_genes(space: SearchSpace, genes: ArrayLike) -> IntArray:
    """Return ``genes`` as an (N, genes) integer array.

    Raises:
        ArchitectureError: the shape does not fit the space, or a gene is out of range.
    """
    array = np.atleast_2d(np.asarray(genes, dtype=np.int64))
    sizes = gene_layout(space).sizes
    if array.ndim != 2 or array.shape[1] != len(sizes):
        raise ArchitectureError(f"genes of {space.name} have {len(sizes)} columns, found shape {array.shape}")
    if array.size and (array.min() < 0 or (array >= sizes).any()):
        raise ArchitectureError(f"a gene is out of range; the numbers of choices are {sizes.tolist()}")
    return array


def choices(space: SearchSpace, genes: ArrayLike) -> Choices:
    """Decode N gene vectors to columns of values; ``genes`` is (N, genes) or one vector."""
    layout = gene_layout(space)
    columns = np.ascontiguousarray(as_genes(space, genes).T)
    width_index = columns[layout.width]
    depth = np.asarray(space.depths)[columns[layout.depth]]
    slots = np.arange(space.max_depth)[None, :, None]
    return Choices(
        resolution=np.asarray(space.resolutions)[columns[layout.resolution]],
        stem=np.asarray(list(space.stem_choices))[columns[layout.stem]],
        width=np.stack([np.asarray(list(w))[i] for w, i in zip(space.width_choices, width_index, strict=True)]),
        multiplier=np.stack(
            [np.asarray(list(w.values()))[i] for w, i in zip(space.width_choices, width_index, strict=True)]
        ),
        depth=depth,
        kernel=np.asarray(space.kernels)[columns[layout.kernel]],
        expand=np.asarray(space.expands, dtype=np.float64)[columns[layout.expand]],
        active=slots < depth[:, None, :],
    )


def canonical(space: SearchSpace, genes: ArrayLike) -> IntArray:
    """Return the canonical gene vectors of the same networks, (N, genes)."""
    layout = gene_layout(space)
    result = as_genes(space, genes).copy()
    chosen = choices(space, result)
    before = chosen.stem
    for s, width in enumerate(chosen.width):
        same = []
        for b in range(space.max_depth):
            active, drawn = chosen.active[s, b], result[:, layout.expand[s, b]]
            same.append(_same_blocks(space, before, width, drawn) | ~active)
            result[:, layout.kernel[s, b]] *= active
            before = width
        if space.expands_per == "stage":
            # A ratio stands for another where it does so in every block.
            same = [np.logical_and.reduce(same)] * space.max_depth
        for position, alike in zip(layout.expand[s], same, strict=True):
            result[:, position] = alike.argmax(axis=0)
    return result


def _same_blocks(space: SearchSpace, before: IntArray, width: IntArray, drawn: IntArray) -> NDArray[np.bool_]:
    """Return a mask (ratios, N), true where a ratio makes the same block as the one ``drawn``."""
    family = LAYOUTS[space.family]
    keys = np.stack([family.block_key(before, width, np.full(len(width), float(ratio))) for ratio in space.expands])
    same: NDArray[np.bool_] = keys == keys[drawn, np.arange(len(width))]
    return same


def decode(space: SearchSpace, genes: ArrayLike) -> Architecture:
    """Decode one gene vector to its architecture; any vector in range has one."""
    chosen = choices(space, canonical(space, genes))
    ratios = {float(ratio): ratio for ratio in space.expands}
    stages = [
        Stage(
            width=int(chosen.width[s, 0]),
            blocks=tuple(
                Block(expand=ratios[chosen.expand[s, b, 0]], kernel=int(chosen.kernel[s, b, 0]))
                for b in range(int(chosen.depth[s, 0]))
            ),
        )
        for s in range(len(space.stages))
    ]
    return Architecture(space.family, int(chosen.resolution[0]), int(chosen.stem[0]), tuple(stages))


def encode(space: SearchSpace, architecture: Architecture) -> IntArray:
    """Return the canonical gene vector of ``architecture``, shape (genes,).

    Raises:
        ArchitectureError: the architecture is not in the space; the message names the field and what the
            space allows there.
    """
    layout = gene_layout(space)
    genes = np.zeros(len(layout.sizes), dtype=np.int64)
    if architecture.family != space.family:
        raise _outside(space, "family", architecture.family, [space.family])
    if len(architecture.stages) != len(space.stages):
        raise _outside(space, "the number of stages", len(architecture.stages), [len(space.stages)])
    genes[layout.resolution] = _index(space, "resolution", architecture.resolution, space.resolutions)
    genes[layout.stem] = _index(space, "stem_width", architecture.stem_width, list(space.stem_choices))
    for s, stage in enumerate(architecture.stages):
        where = f"stages[{s}]"
        genes[layout.width[s]] = _index(space, f"{where}.width", stage.width, list(space.width_choices[s]))
        depth = f"the number of blocks of {where}"
        genes[layout.depth[s]] = _index(space, depth, len(stage.blocks), space.depths)
        if space.expands_per == "stage" and len({block.expand for block in stage.blocks}) > 1:
            ratios = ", ".join(f"{block.expand:g}" for block in stage.blocks)
            raise ArchitectureError(
                f"architecture is not in {space.name}: the expand ratios of {where}.blocks are {ratios}; in this space "
                "all blocks of a stage share one"
            )
        for b, block in enumerate(stage.blocks):
            inner = f"{where}.blocks[{b}]"
            genes[layout.kernel[s, b]] = _index(space, f"{inner}.kernel", block.kernel, space.kernels)
            genes[layout.expand[s, b]] = _index(space, f"{inner}.expand", block.expand, space.expands)
    vector: IntArray = canonical(space, genes)[0]
    return vector


def intersection(space: SearchSpace, one: Architecture, other: Architecture) -> Architecture:
    """Return the largest architecture inside both: every choice is the lesser of theirs, so its slices lie in theirs.

    Raises:
        ArchitectureError: one of them is not in the space.
    """
    return decode(space, np.minimum(encode(space, one), encode(space, other)))


def encode_all(space: SearchSpace, architectures: Sequence[Architecture]) -> IntArray:
    """Return the canonical gene vectors of ``architectures``, (N, genes)."""
    if not architectures:
        return np.empty((0, len(gene_layout(space).sizes)), dtype=np.int64)
    return np.stack([encode(space, architecture) for architecture in architectures])


def random_genes(space: SearchSpace, count: int, generator: np.random.Generator) -> IntArray:
    """Draw random gene vectors, (count, genes), every gene uniformly from its choices."""
    sizes = gene_layout(space).sizes
    genes: IntArray = generator.integers(0, sizes, size=(count, len(sizes)))
    return genes


def smallest_genes(space: SearchSpace) -> IntArray:
    """Return the genes of the network with every choice at its least: no network has fewer MACs."""
    return np.zeros(len(gene_layout(space).sizes), dtype=np.int64)


def largest_genes(space: SearchSpace) -> IntArray:
    """Return the genes of the network with every choice at its most: the supernet's own architecture."""
    return gene_layout(space).sizes - 1


def _index(space: SearchSpace, where: str, value: float, allowed: Sequence[float]) -> int:
    try:
        return list(allowed).index(value)
    except ValueError:
        raise _outside(space, where, value, allowed) from None


def _outside(space: SearchSpace, where: str, value: object, allowed: Sequence[object]) -> ArchitectureError:
    values = ", ".join(map(str, allowed))
    return ArchitectureError(f"architecture is not in {space.name}: {where} is {value}; allowed: {values}")
