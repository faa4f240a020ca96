"""What the completions of partial networks may still add: the bounds that make the exact solver's pruning safe."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedpareto.cache.exact.plan import BlockChoices, Plan
from fedpareto.supernet.arrays import FloatArray, IntArray


class CompletionBounds(NamedTuple):
    """Bounds over all completions of the partial networks that share a place and a width.

    ``layers`` (m,) are the numbers of scored layers still to come; ``low`` and ``high`` (m,) the least and most
    sum of their ``ln w``; ``least`` and ``most`` (costs,) bound every cost.
    """

    layers: IntArray
    low: FloatArray
    high: FloatArray
    least: FloatArray
    most: FloatArray


class BoundsByWidth(NamedTuple):
    """What is ahead of a place, by width: after some blocks of a stage, or before a stage.

    ``depths`` (n, 2) are the sums and the sums of squares that the depths of the stages not finished may have.
    """

    outlooks: tuple[CompletionBounds, ...]
    depths: IntArray


class SpaceBounds(NamedTuple):
    """``inside[s][d]`` is ahead after block d of stage s (0 the first), ``before[s]`` ahead of stage s."""

    inside: tuple[tuple[BoundsByWidth, ...], ...]
    before: tuple[BoundsByWidth, ...]


def look_ahead(plan: Plan, depths: Sequence[int]) -> SpaceBounds:
    """Return the outlooks of every place of a plan whose stages have one of ``depths`` blocks."""
    nothing = np.zeros(1)
    end = tuple(CompletionBounds(np.zeros(1, dtype=np.int64), nothing, nothing, paid, paid) for paid in plan.head.T)
    before = [BoundsByWidth(end, np.zeros((1, 2), dtype=np.int64))]
    inside: list[tuple[BoundsByWidth, ...]] = []
    for stage in reversed(plan.stages):
        places: list[BoundsByWidth] = []
        for d in reversed(range(depths[-1])):
            outlooks = []
            for width in range(len(stage.weights)):
                ways = [before[0].outlooks[stage.ends[width]]] if d + 1 in depths else []
                if places:
                    ways.append(_earlier(places[0].outlooks[width], stage.later[d], width))
                outlooks.append(_union(ways))
            finished = [depth for depth in depths if depth > d]
            places.insert(0, BoundsByWidth(tuple(outlooks), _depth_sums(finished, before[0].depths)))
        inputs, outputs = stage.falls.shape
        entered = tuple(
            _union(_earlier(places[0].outlooks[o], stage.first, i, o) for o in range(outputs)) for i in range(inputs)
        )
        inside.insert(0, tuple(places))
        before.insert(0, BoundsByWidth(entered, places[0].depths))
    return SpaceBounds(tuple(inside), tuple(before))


def _earlier(outlook: CompletionBounds, options: BlockChoices, *widths: int) -> CompletionBounds:
    """Return the outlook one block earlier, the block having ``options`` between ``widths``."""
    ways = []
    for group, _ in options.between(*widths):
        low, high = group.log_widths.min(), group.log_widths.max()
        least, most = group.costs.min(axis=1), group.costs.max(axis=1)
        ways.append(
            CompletionBounds(
                outlook.layers + group.layers[0],
                outlook.low + low,
                outlook.high + high,
                outlook.least + least,
                outlook.most + most,
            )
        )
    return _union(ways)


def _union(outlooks: Iterable[CompletionBounds]) -> CompletionBounds:
    """Return the outlook of a network that may go on in any of several ways."""
    layers, low, high, least, most = zip(*outlooks, strict=True)
    counts, where = np.unique(np.concatenate(layers), return_inverse=True)
    lowest, highest = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(lowest, where, np.concatenate(low))
    np.maximum.at(highest, where, np.concatenate(high))
    return CompletionBounds(counts, lowest, highest, np.min(least, axis=0), np.max(most, axis=0))


def _depth_sums(depths: Sequence[int], rest: IntArray) -> IntArray:
    """Return the distinct sums and sums of squares of one more stage with one of ``depths``."""
    sums = {
        (depth + total, depth * depth + squares) for depth, (total, squares) in itertools.product(depths, rest.tolist())
    }
    return np.array(sorted(sums))
