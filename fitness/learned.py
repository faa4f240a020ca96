"""Learned terms of the fitness, tabulated by part of a network so that they add up over parts.

A block's term is that of its kernel and expand ratio in its slot. The term of a stage's width goes with its first
block, the term of a depth with the block that completes it, and all other terms with the stem.
"""

import functools

import numpy as np

from fedpareto.fitness.part_tables import Parts, choices_made, space_parts
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.blocks import LAYOUTS
from fedpareto.supernet.learned import LearnedTerms
from fedpareto.supernet.space import SearchSpace


def learned_sum(space: SearchSpace, columns: IntArray, terms: LearnedTerms) -> FloatArray:
    """Return the sum of the learned terms of N gene vectors, (N,); ``columns`` is (genes, N)."""
    made, gains = choices_made(space, columns), learned_gains(space, terms)
    total = gains.stem[made.stem]
    for slots, tables in zip(made.blocks, gains.blocks, strict=True):
        for index, table in zip(slots, tables, strict=True):
            total = total + table[index]
    return total


@functools.lru_cache(maxsize=16)
def learned_gains(space: SearchSpace, terms: LearnedTerms) -> Parts[FloatArray]:
    """Return the term of each choice of each part, arrays of shape (choices + 1,), 0 for an absent block at the end."""
    parts = space_parts(space)
    stem = terms.intercept + np.add.outer(np.array(terms.resolutions), np.array(terms.stem))
    blocks = tuple(
        tuple(_block(space, terms, s, b).ravel() for b in range(space.max_depth)) for s in range(len(space.stages))
    )
    return Parts(stem.ravel(), blocks, np.zeros(parts.head.choices)).map(lambda values: np.append(values, 0.0))


def _block(space: SearchSpace, terms: LearnedTerms, s: int, b: int) -> FloatArray:
    """Return a block's terms in the shape of its part: by resolution, widths, kernel and expand ratio."""
    of_choices = np.array(terms.blocks[s][b]) + _depth_reached(space, terms, s, b)
    added = of_choices[:, distinct_ratios(space, s, b)]
    # (kernels, input widths, output widths, expands) to widths first.
    added = np.moveaxis(added, 0, -2)
    if b == 0:
        added = added + np.array(terms.widths[s])[:, None, None]
    return np.broadcast_to(added, (len(space.resolutions), *added.shape))


def distinct_ratios(space: SearchSpace, s: int, b: int) -> IntArray:
    """Return the index of the least expand ratio that makes the same block, by the block's widths and its ratio.

    Shape (input widths, output widths, expands) for a stage's first block, (output widths, expands) for a later one.
    Equal networks are thus given equal terms, whichever ratio their genes name.
    """
    outputs = np.array(list(space.width_choices[s]))
    before = list(space.stem_choices if s == 0 else space.width_choices[s - 1])
    inputs = np.array(before)[:, None] if b == 0 else outputs
    c_in, c_out = np.broadcast_arrays(inputs, outputs)
    keys = np.stack(
        [LAYOUTS[space.family].block_key(c_in, c_out, np.full(c_in.shape, float(ratio))) for ratio in space.expands],
        axis=-1,
    )
    least: IntArray = (keys[..., :, None] == keys[..., None, :]).argmax(axis=-1)
    return least


def _depth_reached(space: SearchSpace, terms: LearnedTerms, s: int, b: int) -> float:
    """Return the term of the depth that block ``b`` completes less that of the depth before; 0 if it completes none."""
    if b + 1 not in space.depths:
        return 0.0
    index = space.depths.index(b + 1)
    return terms.depths[s][index] - (terms.depths[s][index - 1] if index else 0.0)
