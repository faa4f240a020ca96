"""Prices of costs (Lagrange multipliers) at which the relaxation's bounds on fitness are low.

Any prices of 0 or more give valid bounds, so the searches here need not be exact: better prices only drop more labels.
For one network, prices lie around those of the lowest bound; for a front, there is a row for each part of it.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from fedpareto.cache.exact.relaxation import LinearRelaxation, Lines, relax
from fedpareto.supernet.arrays import FloatArray

#: Least and most logarithm of a price, whose unit is the fitness divided by the limit.
_LOGARITHMS = (-12.0, 6.0)

#: Search for prices: how many are tried at a time for each cost, how far around the best (in logarithms) at first, and
#: how often, for a single row and for one of many.
_TRIED, _RADIUS, _ROUNDS, _ROUNDS_OF_MANY = 8, 3.0, 24, 8

#: The search for prices uses one of so many lines: it is quicker, and its outcome is valid all the same.
_COARSER = 8

#: Distances, in logarithms, of further rows of prices from those of the lowest bound.
_AROUND = (0.1, 0.3, 0.8)

#: Number of random directions of these distances, besides those that change a single price.
_DIRECTIONS = 20

#: Least divisor, in place of a cost of 0.
_LEAST = 1e-300

#: Number of prices of the swept cost that are tried for a front of which nothing is known, and their logarithms' range.
_GRID, _SPAN = 160, 8.0


class Front(NamedTuple):
    """Known networks by ascending first cost and fitness, both (N,); a network worth finding is no worse than they."""

    cost: FloatArray
    fitness: FloatArray


def tightest(linear: LinearRelaxation, limits: FloatArray) -> FloatArray:
    """Return the prices of the least upper bound found, and prices around them, (K, costs).

    The prices that bound a label best differ from position to position, so there are several rows. Costs without a
    limit have price 0.
    """
    limited = np.isfinite(limits)
    lowest, scale = _lowest(linear, limits, np.zeros((1, len(limits))))
    directions = _directions(int(limited.sum()))
    around = np.concatenate([np.zeros_like(directions[:1]), *(radius * directions for radius in _AROUND)])
    rows = np.repeat(lowest, len(around), axis=0)
    rows[:, limited] *= np.exp(around)
    prices: FloatArray = np.minimum(rows, scale * np.exp(_LOGARITHMS[1]))
    return prices


def sweeping(linear: LinearRelaxation, limits: FloatArray, count: int) -> FloatArray:
    """Return prices for about ``count`` parts of a front over the first cost that is not known yet, (K, costs)."""
    coarse = _coarse(linear)
    rows = np.zeros((_GRID, len(limits)))
    scale = max(1.0, abs(float(relax(coarse, rows[:1]).start(coarse)[0]))) / max(linear.most, _LEAST)
    rows[:, 0] = scale * np.exp(np.linspace(_SPAN, -_SPAN, _GRID))
    bounds = relax(coarse, rows).start(coarse)
    # The derivative of the bound by the price is minus the cost of the network that attains it (envelope theorem), so
    # this is that network's fitness. Prices are chosen at even steps of it.
    fitness = np.maximum.accumulate(bounds - rows[:, 0] * np.gradient(bounds, rows[:, 0]))
    chosen = np.unique(np.searchsorted(fitness, np.linspace(fitness[0], fitness[-1], count)))
    return at_prices(linear, limits, np.append(rows[chosen, 0], 0.0))


def at_prices(linear: LinearRelaxation, limits: FloatArray, first: FloatArray) -> FloatArray:
    """Return K given prices of the first cost, (K,), each with prices of the other costs that suit it, (K, costs)."""
    rows = np.zeros((len(first), len(limits)))
    rows[:, 0] = first
    return _lowest(linear, np.append(np.inf, limits[1:]), rows)[0]


def slopes_of(front: Front, count: int) -> FloatArray:
    """Return about ``count`` prices of the first cost, 0 among them: the slopes of the front's upper convex hull."""
    hull: list[tuple[float, float]] = []
    for point in zip(front.cost.tolist(), front.fitness.tolist(), strict=True):
        while len(hull) > 1 and _slope(hull[-1], point) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    slopes = np.array([_slope(*pair) for pair in itertools.pairwise(hull)])
    if len(slopes) > count:
        slopes = slopes[np.linspace(0, len(slopes) - 1, count).round().astype(int)]
    return np.append(slopes, 0.0)


def _slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])


def _lowest(linear: LinearRelaxation, limits: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return K ``rows`` of prices, (K, costs), with low-bound prices of the limited costs, and the prices' unit."""
    limited = np.flatnonzero(np.isfinite(limits))
    coarse = _coarse(linear)
    free = abs(float(relax(coarse, np.zeros((1, len(limits)))).start(coarse)[0]))
    scale = np.where(limits > 0, free / np.where(limits > 0, limits, 1), free)
    if not len(limited):
        return rows, scale
    count = len(rows)
    steps = _steps(len(limited))
    best, radius = np.full((count, 1, len(limited)), -1.0), np.full((count, 1, 1), _RADIUS)
    every = np.arange(count)
    for _ in range(_ROUNDS if count == 1 else _ROUNDS_OF_MANY):
        tried = np.clip(best + radius * steps, *_LOGARITHMS)
        prices = np.repeat(rows[:, None, :], len(steps), axis=1)
        prices[:, :, limited] = scale[limited] * np.exp(tried)
        start = relax(coarse, prices.reshape(-1, len(limits))).start(coarse).reshape(count, -1)
        winner = (start + prices[:, :, limited] @ limits[limited]).argmin(axis=1)
        best = tried[every, winner][:, None, :]
        radius = np.where((winner == 0)[:, None, None], radius / 2, radius)
    found = rows.copy()
    found[:, limited] = scale[limited] * np.exp(best[:, 0])
    return found, scale


def _coarse(linear: LinearRelaxation) -> LinearRelaxation:
    layers, log_widths = linear.lines
    return linear._replace(lines=Lines(layers[::_COARSER], log_widths[::_COARSER]))


@functools.cache
def _steps(costs: int) -> FloatArray:
    """Return the steps of a search around a point, (N, costs); the first is none."""
    drawn = np.random.default_rng(0).uniform(-1, 1, size=(_TRIED * costs, costs))
    return np.concatenate([np.zeros((1, costs)), _axes(costs), drawn])


@functools.cache
def _directions(costs: int) -> FloatArray:
    return np.concatenate([_axes(costs), np.random.default_rng(1).normal(size=(_DIRECTIONS, costs))])


def _axes(costs: int) -> FloatArray:
    return np.concatenate([np.eye(costs), -np.eye(costs)])
