"""What a partial network has to promise to be kept, where some complete networks are known."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.exact.labels import Labels, State
from fedpareto.cache.exact.prices import Front
from fedpareto.cache.exact.relaxation import LinearRelaxation
from fedpareto.supernet.arrays import FloatArray, IntArray

#: What bounds allow for rounding, relative to what they bound.
ROUNDING = 1e-9

#: Labels whose bounds are computed at once.
_CHUNK = 512

#: Labels that lead at each row of prices.
_LEADERS = 2

#: Sums of ``ln w`` nearer than this are one.
_POINT = 1e-9


class Demand(NamedTuple):
    """What the fitness less priced costs of a network has to reach, at K rows of prices.

    Attributes:
        least: at each row, (K,).
        every: whether all of them have to be reached; if not, a row stands for a part of a front, and one is enough.
        known: least first cost of a known network: what has less is of interest, however fit.
    """

    least: FloatArray
    every: bool
    known: float


def as_fit_as(fitness: float, prices: FloatArray, limits: FloatArray) -> Demand:
    """Return the demand on networks of at least a ``fitness`` within limits on all costs."""
    least = fitness - _returned(prices, limits)
    return Demand(_lowered(least, np.maximum(np.abs(least), abs(fitness))), every=True, known=-np.inf)


def within(prices: FloatArray, limits: FloatArray) -> Demand:
    """Return a demand that a label exceeds by the least of its bounds on the fitness."""
    return Demand(-_returned(prices, limits), every=True, known=-np.inf)


def anywhere(prices: FloatArray, limits: FloatArray) -> Demand:
    """Return a demand that a label exceeds, at each row, by its bound."""
    return Demand(-_returned(prices[:, 1:], limits[1:]), every=False, known=np.inf)


def above(front: Front, prices: FloatArray, limits: FloatArray) -> Demand:
    """Return the demand on networks at or above a known front, within limits on all costs but the first."""
    swept, ends = prices[:, 0], front.cost[1:]
    # A network of the front is beaten with least ease right before the next one: at the row that is lowest there.
    touching = (front.fitness - np.multiply.outer(swept, front.cost)).max(axis=1)
    rows = (touching[:, None] + np.multiply.outer(swept, ends)).argmin(axis=0)
    least = np.full(len(prices), np.inf)
    np.minimum.at(least, rows, front.fitness[:-1] - swept[rows] * ends)
    least[swept == 0] = np.minimum(least[swept == 0], front.fitness[-1])
    size = np.abs(front.fitness).max() + swept * front.cost[-1]
    return Demand(_lowered(least - _returned(prices[:, 1:], limits[1:]), size), every=False, known=float(front.cost[0]))


def _returned(prices: FloatArray, limits: FloatArray) -> FloatArray:
    """Return what limits that are just met are worth, by rows of prices, (K,)."""
    returned: FloatArray = prices @ np.where(np.isfinite(limits), limits, 0.0)
    return returned


def _lowered(least: FloatArray, size: FloatArray) -> FloatArray:
    lowered: FloatArray = least - ROUNDING * np.maximum(1.0, size)
    return lowered


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What completions can still gain at one place, and what is asked of them.

    Attributes:
        prices: K rows of prices, (K, costs).
        gains: the most that fitness less priced costs gains, (K, lines, widths).
        linear: the networks.
        slope: most that entropy gains later for a unit of ``ln w`` so far.
        demand: what is asked.
    """

    prices: FloatArray
    gains: FloatArray
    linear: LinearRelaxation
    slope: float
    demand: Demand

    def excess(self, state: State, labels: Labels, irregularity: float) -> FloatArray:
        """Return by how much N labels of a state may exceed the demand at each row, (K, N).

        ``irregularity`` is the least ``ω·Q`` of their completions.
        """
        found = np.empty((len(self.prices), len(labels.record)))
        # Over a narrow range of P the highest of the lines is near its chord.
        narrow = len(self.linear.lines.layers) == 1
        order = np.arange(found.shape[1]) if narrow else np.argsort(labels.log_widths, kind="stable")
        base = self.demand.least + irregularity
        for start in range(0, len(order), _CHUNK):
            index = order[start : start + _CHUNK]
            found[:, index] = self._bounds(state, labels.take(index)) - base[:, None]
        return found

    def _bounds(self, state: State, labels: Labels) -> FloatArray:
        """Return the bounds of labels, (K, N); depth irregularity is left out."""
        low, high = float(labels.log_widths.min()), float(labels.log_widths.max())
        least, most = (self._gains(state, log_widths) for log_widths in (low, high))
        # What is left to gain is convex in P: a chord bounds it.
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
    """Return which of N labels may meet the demand, (N,); ``first`` (N,) is the least they have of the first cost."""
    reached = excess >= 0
    if bounds.demand.every:
        everywhere: NDArray[np.bool_] = np.logical_and.reduce(reached, axis=0)
        return everywhere
    cheap = first <= bounds.demand.known * (1 + ROUNDING)
    somewhere: NDArray[np.bool_] = np.logical_or(reached.any(axis=0), cheap)
    return somewhere


def leading(bounds: Bounds, excess: FloatArray, first: FloatArray, count: int) -> IntArray:
    """Return the indices of labels that exceed the demand most: ``count`` of all, or two at every row."""
    if bounds.demand.every:
        if excess.shape[1] <= count:
            return np.arange(excess.shape[1])
        order: IntArray = np.argsort(-excess.min(axis=0), kind="stable")[:count]
        return order
    best = np.argpartition(-excess, min(_LEADERS, excess.shape[1]) - 1, axis=1)[:, :_LEADERS]
    return np.unique(np.append(best, first.argmin()))
