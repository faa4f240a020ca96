"""Pareto dominance: finds the points that no other point dominates, in numpy alone.

A point dominates another if it is at least as good in every coordinate; of equal points one stays.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.arrays import FloatArray, IntArray

#: Points compared with the kept ones at a time.
_CHUNK = 256

#: True where one of a chunk's points comes before another.
_BEFORE = np.triu(np.ones((_CHUNK, _CHUNK), dtype=np.bool_), 1)

#: Sums of coordinates whose leaders thin out points of many coordinates.
_SUMS = 8


def pareto_front(cost: NDArray[Any], value: FloatArray) -> IntArray:
    """Return the indices of the points no other point dominates, by ascending cost and value.

    Less cost and more value are better.
    """
    order: IntArray = np.lexsort((-value, cost))
    return order[_rises(value[order])]


def non_dominated(points: FloatArray) -> IntArray:
    """Return the indices of the non-dominated of N points; in each of (coordinates, N) more is better."""
    order = np.argsort(-points[0], kind="stable")
    # Domination is transitive. A point dominated by another that is dropped is dominated by one that stays, so any
    # dominated point may be dropped at any time. Most fall to a leader, in one pass; the rest is compared in full.
    for merit in _merits(points[1:]):
        order = _without_led(points[1:], merit, order)
    order = order[np.lexsort(-points[::-1, order])]
    others = points[1:, order]
    if len(others) == 0:
        best: IntArray = order[:1]
        return best
    if len(others) == 1:
        return order[_rises(others[0])]
    return order[_staircase(others) if len(others) == 2 else _compared(others)]


def _rises(values: FloatArray) -> NDArray[np.bool_]:
    """Return a mask of the values in a sequence that exceed all values before them."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(values)[:-1]])
    rises: NDArray[np.bool_] = values > before
    return rises


def _merits(points: FloatArray) -> list[FloatArray]:
    """Return the merits by which leaders are chosen: each coordinate, and weighted sums if there are many."""
    merits = list(points)
    if len(points) > 2:
        span = np.ptp(points, axis=1)
        merits += list(_mixtures(len(points)) @ (points / np.where(span > 0, span, 1)[:, None]))
    return merits


@functools.cache
def _mixtures(coordinates: int) -> FloatArray:
    return np.random.default_rng(0).dirichlet(np.ones(coordinates), size=_SUMS)


def _without_led(points: FloatArray, merit: FloatArray, order: IntArray) -> IntArray:
    """Return ``order`` without the points that are dominated by the point of most merit before them.

    ``order`` is descending in the coordinate that ``points`` lack, so whatever comes before is at least as good in it.
    """
    if len(order) < 2:
        return order
    points, merit = points[:, order], merit[order]
    leads = np.where(merit >= np.maximum.accumulate(merit), np.arange(len(order)), 0)
    leader = np.maximum.accumulate(leads)[:-1]
    led = (points[:, 1:] <= points[:, leader]).all(axis=0)
    kept: IntArray = order[np.concatenate([[True], ~led])]
    return kept


def _staircase(points: FloatArray) -> IntArray:
    """Return the indices of (2, N) points that none before them dominates."""
    # The outline of the kept points: first coordinates rise, second ones fall.
    first, second = np.array([np.inf]), np.array([-np.inf])
    kept = []
    for start in range(0, points.shape[1], _CHUNK):
        chunk = points[:, start : start + _CHUNK]
        alive = np.flatnonzero(second[np.searchsorted(first, chunk[0])] < chunk[1])
        alive = alive[_undominated(chunk[:, alive])]
        kept.append(start + alive)
        u = np.concatenate([first, chunk[0, alive]])
        v = np.concatenate([second, chunk[1, alive]])
        order = np.lexsort((-v, -u))
        outline = order[_rises(v[order]) | (u[order] == np.inf)][::-1]
        first, second = u[outline], v[outline]
    return np.concatenate(kept)


def _compared(points: FloatArray) -> IntArray:
    """Return the indices of (coordinates, N) points that none before them dominates, comparing them in full."""
    kept: list[IntArray] = []
    best: list[NDArray[Any]] = []
    ranks = _ranks(points)
    for start in range(0, ranks.shape[1], _CHUNK):
        index = np.arange(start, min(start + _CHUNK, ranks.shape[1]))
        for block in best:
            index = index[~_dominates(block, ranks[:, index]).any(axis=0)]
        index = index[_undominated(ranks[:, index])]
        kept.append(index)
        best.append(ranks[:, index])
    return np.concatenate(kept)


def _ranks(points: FloatArray) -> NDArray[Any]:
    """Return the ranks of (coordinates, N) points in each coordinate: small numbers, compared many at a time."""
    ranks = np.stack([np.unique(row, return_inverse=True)[1] for row in points])
    return ranks.astype(np.uint16 if ranks.max() < 2**16 else np.uint32)


def _undominated(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask of the points, at most a chunk, that no point before them dominates."""
    count = points.shape[1]
    dominated: NDArray[np.bool_] = np.any(_dominates(points, points) & _BEFORE[:count, :count], axis=0)
    return np.logical_not(dominated)


def _dominates(points: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a matrix (points, others), true where a point is at least as good as the other in every coordinate."""
    result: NDArray[np.bool_] = np.greater_equal.outer(points[0], others[0])
    for mine, theirs in zip(points[1:], others[1:], strict=True):
        result &= np.greater_equal.outer(mine, theirs)
    return result
