"""Upper bounds on the fitness a partial network can reach, and demands on them that follow from known networks.

A bound holds at given prices of the costs (Lagrangian relaxation, ``fedpareto.cache.exact.relaxation``). For prices
π ≥ 0 a network within the limits has ``F ≤ F − π·(cost − limit)``. So if it is as fit as a known f, its F − π·cost is
at least f − π·limit, and a label whose bound on F − π·cost is less cannot become such a network.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.exact.labels import Labels, State
from fedpareto.cache.exact.prices import Front
from fedpareto.cache.exact.relaxation import LinearRelaxation
from fedpareto.supernet.arrays import FloatArray, IntArray

#: Tolerance of bounds for rounding, relative to the size of what they bound.
ROUNDING = 1e-9

#: Labels whose bounds are computed at a time, sharing one chord.
_CHUNK = 512

#: Labels that a beam keeps at each row of prices.
_LEADERS = 2

#: Difference of sums of ``ln w`` below which they count as equal.
_POINT = 1e-9


class Demand(NamedTuple):
    """Demand on a network: the least of fitness less priced costs, F − π·cost, that it must have at K rows of prices.

    Attributes:
        least: the demand at each row, (K,).
        every: true if all rows must be met; false if each row stands for a part of a front, so that one is enough.
        known: least first cost of a known network; a network with less is wanted however fit it is.
    """

    least: FloatArray
    every: bool
    known: float


def as_fit_as(fitness: float, prices: FloatArray, limits: FloatArray) -> Demand:
    """Return the demand that every network of at least a ``fitness`` within limits on all costs meets, at every row."""
    least = fitness - _returned(prices, limits)
    return Demand(_lowered(least, np.maximum(np.abs(least), abs(fitness))), every=True, known=-np.inf)


def within(prices: FloatArray, limits: FloatArray) -> Demand:
    """Return a demand whose excess is, at each row, a bound on the fitness within the limits; to rank labels by."""
    return Demand(-_returned(prices, limits), every=True, known=-np.inf)


def anywhere(prices: FloatArray, limits: FloatArray) -> Demand:
    """Return a demand whose excess is, at each row, a bound on F less the priced first cost; to rank labels by."""
    return Demand(-_returned(prices[:, 1:], limits[1:]), every=False, known=np.inf)


def above(front: Front, prices: FloatArray, limits: FloatArray) -> Demand:
    """Return the demand that every network at or above a known front meets at one row or more.

    The network has a first cost c between two neighbours of the front, c_i ≤ c ≤ c_{i+1}, and F ≥ f_i, else the known
    network i is better. With a price s ≥ 0 of that cost, ``F − s·c ≥ f_i − s·c_{i+1}``: the demand at the one row that
    part i is given to. Beyond the last cost F is at least the last fitness, the demand at price 0; below the first
    cost there is none (``known``). The other costs are within limits, as in ``as_fit_as``.
    """
    swept, ends = prices[:, 0], front.cost[1:]
    # Any row is valid for part i. The tightest one is whose line above the front is lowest at the part's end c_{i+1}.
    touching = (front.fitness - np.multiply.outer(swept, front.cost)).max(axis=1)
    rows = (touching[:, None] + np.multiply.outer(swept, ends)).argmin(axis=0)
    least = np.full(len(prices), np.inf)
    np.minimum.at(least, rows, front.fitness[:-1] - swept[rows] * ends)
    least[swept == 0] = np.minimum(least[swept == 0], front.fitness[-1])
    size = np.abs(front.fitness).max() + swept * front.cost[-1]
    return Demand(_lowered(least - _returned(prices[:, 1:], limits[1:]), size), every=False, known=float(front.cost[0]))


def _returned(prices: FloatArray, limits: FloatArray) -> FloatArray:
    """Return the priced limits, π·limit, of each row of prices, (K,); costs without a limit have price 0."""
    returned: FloatArray = prices @ np.where(np.isfinite(limits), limits, 0.0)
    return returned


def _lowered(least: FloatArray, size: FloatArray) -> FloatArray:
    lowered: FloatArray = least - ROUNDING * np.maximum(1.0, size)
    return lowered


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Price bounds at one position: the most that completions can still gain, and the demand on the whole.

    Attributes:
        prices: K rows of prices, (K, costs).
        gains: most that completions add to fitness less priced costs, (K, lines, widths).
        linear: the relaxed networks.
        slope: most gain of entropy in later stages for a unit of ``ln w`` so far.
        demand: the demand.
    """

    prices: FloatArray
    gains: FloatArray
    linear: LinearRelaxation
    slope: float
    demand: Demand

    def excess(self, state: State, labels: Labels, irregularity: float) -> FloatArray:
        """Return the excess of the bounds of N labels of a state over the demand, at each row, (K, N).

        ``irregularity`` is the least ``ω·Q`` of their completions: every completion loses at least that.
        """
        found = np.empty((len(self.prices), len(labels.record)))
        # Labels are sorted by P so that a chunk has a narrow range of it, over which a chord is a tight bound.
        narrow = len(self.linear.lines.layers) == 1
        order = np.arange(found.shape[1]) if narrow else np.argsort(labels.log_widths, kind="stable")
        base = self.demand.least + irregularity
        for start in range(0, len(order), _CHUNK):
            index = order[start : start + _CHUNK]
            found[:, index] = self._bounds(state, labels.take(index)) - base[:, None]
        return found

    def _bounds(self, state: State, labels: Labels) -> FloatArray:
        """Return the bounds of labels on fitness less priced costs, without ``ω·Q``, (K, N).

        A label's own part is E − π·cost. Its completions add at most ``slope·P`` of prefix entropy for its P, as
        P ≥ 0, and at most ``max over lines of (gains + line)`` for everything else, λ·ρ of the whole network included.
        """
        low, high = float(labels.log_widths.min()), float(labels.log_widths.max())
        least, most = (self._gains(state, log_widths) for log_widths in (low, high))
        # The highest of lines is convex in P, so between the chunk's least and most P it lies below its chord.
        chord = (most - least) / max(high - low, _POINT)
        costs = self.linear.costs(labels.costs, state.layers, state.stem + labels.log_widths)
        bounds: FloatArray = np.column_stack([-self.prices, chord]) @ np.vstack([costs, labels.log_widths - low])
        bounds += least[:, None]
        bounds += labels.entropy + self.slope * labels.log_widths
        return bounds

    def _gains(self, state: State, log_widths: float) -> FloatArray:
        added = self.linear.lines.at(state.layers, state.stem + log_widths)
        gains: FloatArray = (self.gains[:, :, state.width] + added).max(axis=1)
        return gains


def promising(bounds: Bounds, excess: FloatArray, first: FloatArray) -> NDArray[np.bool_]:
    """Return a mask of the N labels that may meet the demand, (N,).

    ``first`` (N,) is the least first cost of their completions. All others are dropped: no completion of theirs meets
    the demand, which every network worth finding does.
    """
    reached = excess >= 0
    if bounds.demand.every:
        everywhere: NDArray[np.bool_] = np.logical_and.reduce(reached, axis=0)
        return everywhere
    cheap = first <= bounds.demand.known * (1 + ROUNDING)
    somewhere: NDArray[np.bool_] = np.logical_or(reached.any(axis=0), cheap)
    return somewhere


def leading(bounds: Bounds, excess: FloatArray, first: FloatArray, count: int) -> IntArray:
    """Return the indices of the labels that exceed the demand most: ``count`` of all, or two at every row."""
    if bounds.demand.every:
        if excess.shape[1] <= count:
            return np.arange(excess.shape[1])
        order: IntArray = np.argsort(-excess.min(axis=0), kind="stable")[:count]
        return order
    best = np.argpartition(-excess, min(_LEADERS, excess.shape[1]) - 1, axis=1)[:, :_LEADERS]
    return np.unique(np.append(best, first.argmin()))
