"""Bounds on what the completions of a partial network add to its costs, its layers and its sum of ``ln w``.

A completion is any choice of the blocks that are still missing. The exact solver drops a partial network only where
these bounds show that no completion can save it, so that nothing optimal is lost.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedpareto.cache.exact.plan import BlockChoices, Plan
from fedpareto.supernet.arrays import FloatArray, IntArray


class CompletionBounds(NamedTuple):
    """Bounds over all completions of the partial networks that share a position and an output width.

    ``layers`` (m,) are the numbers of scored layers still to come. ``low`` and ``high`` (m,) are the least and the most
    sum of their ``ln w``, for each of these numbers. ``least`` and ``most`` (costs,) bound what is added to every cost.
    """

    layers: IntArray
    low: FloatArray
    high: FloatArray
    least: FloatArray
    most: FloatArray


class BoundsByWidth(NamedTuple):
    """Bounds at one position, by output width: after some blocks of a stage, or before a stage.

    ``depths`` (n, 2) are the sums, and the sums of squares, that the depths of the unfinished stages may have.
    """

    by_width: tuple[CompletionBounds, ...]
    depths: IntArray


class SpaceBounds(NamedTuple):
    """Bounds at every position: ``inside[s][d]`` after block d (from 0) of stage s, ``before[s]`` before stage s."""

    inside: tuple[tuple[BoundsByWidth, ...], ...]
    before: tuple[BoundsByWidth, ...]


def bound_completions(plan: Plan, depths: Sequence[int]) -> SpaceBounds:
    """Return the bounds at every position of a plan whose stages have one of ``depths`` blocks.

    Computed from the last block backwards: the bounds before a block are those after it plus the block's own least
    and most.
    """
    nothing = np.zeros(1)
    end = tuple(CompletionBounds(np.zeros(1, dtype=np.int64), nothing, nothing, paid, paid) for paid in plan.head.T)
    before = [BoundsByWidth(end, np.zeros((1, 2), dtype=np.int64))]
    inside: list[tuple[BoundsByWidth, ...]] = []
    # Costs, layers and ln w are sums over blocks. Each block's least and most is taken on its own, so that for every
    # completion Σ min ≤ sum ≤ Σ max. Widths link neighbouring blocks and are therefore kept apart; nothing else does.
    for stage in reversed(plan.stages):
        places: list[BoundsByWidth] = []
        for d in reversed(range(depths[-1])):
            by_width = []
            for width in range(len(stage.weights)):
                ways = [before[0].by_width[stage.ends[width]]] if d + 1 in depths else []
                if places:
                    ways.append(_earlier(places[0].by_width[width], stage.later[d], width))
                by_width.append(_union(ways))
            finished = [depth for depth in depths if depth > d]
            places.insert(0, BoundsByWidth(tuple(by_width), _depth_sums(finished, before[0].depths)))
        inputs, outputs = stage.falls.shape
        entered = tuple(
            _union(_earlier(places[0].by_width[o], stage.first, i, o) for o in range(outputs)) for i in range(inputs)
        )
        inside.insert(0, tuple(places))
        before.insert(0, BoundsByWidth(entered, places[0].depths))
    return SpaceBounds(tuple(inside), tuple(before))


def _earlier(ahead: CompletionBounds, options: BlockChoices, *widths: int) -> CompletionBounds:
    """Return the bounds one block earlier, where that block has ``options`` between ``widths``."""
    ways = []
    # Options with another number of layers end at another L, for which ρ ≤ ρ0 asks another sum of ln w.
    for group, _ in options.between(*widths):
        low, high = group.log_widths.min(), group.log_widths.max()
        least, most = group.costs.min(axis=1), group.costs.max(axis=1)
        ways.append(
            CompletionBounds(
                ahead.layers + group.layers[0],
                ahead.low + low,
                ahead.high + high,
                ahead.least + least,
                ahead.most + most,
            )
        )
    return _union(ways)


def _union(continuations: Iterable[CompletionBounds]) -> CompletionBounds:
    """Return the bounds of a network that may go on in any of several ways: the loosest of theirs."""
    layers, low, high, least, most = zip(*continuations, strict=True)
    counts, where = np.unique(np.concatenate(layers), return_inverse=True)
    lowest, highest = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(lowest, where, np.concatenate(low))
    np.maximum.at(highest, where, np.concatenate(high))
    return CompletionBounds(counts, lowest, highest, np.min(least, axis=0), np.max(most, axis=0))


def _depth_sums(depths: Sequence[int], rest: IntArray) -> IntArray:
    """Return the distinct (sum, sum of squares) of depths, (n, 2): one stage of ``depths`` in front of the ``rest``."""
    sums = {
        (depth + total, depth * depth + squares) for depth, (total, squares) in itertools.product(depths, rest.tolist())
    }
    return np.array(sorted(sums))
