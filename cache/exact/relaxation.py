"""Lagrangian relaxation of the search: upper bounds on fitness with limits priced instead of enforced.

For prices π ≥ 0, ``F − π·cost`` is maximised over all networks, within the limits or not. A network within the limits
then has ``F ≤ max(F − π·cost) + π·limit`` (Everett, "Generalized Lagrange multiplier method for solving problems of
optimum allocation of resources", 1963). The maximum is found by dynamic programming, as all that is left is made a sum
over blocks:

- ``ρ ≤ ρ0`` becomes one more limit, on the last cost: ``L·ln(L/ρ0) − P ≤ 0``, P being the sum of ``ln w`` over L scored
  layers. It is convex in L, so a tangent in L lies below it and is a weaker limit, and a sum over layers.
- ``λ·ρ = λ·L·exp(−P/L)`` is bounded by lines in (L, P), each a sum over layers: for λ > 0 by chords, as it is convex
  in (L, P) together, for λ < 0 by a tangent.

Q is left out here and taken off by whoever uses the bounds.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpareto.cache.exact.completion_bounds import SpaceBounds
from fedpareto.cache.exact.plan import BlockChoices, Plan
from fedpareto.fitness.score import effectiveness_bound
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings

#: Number of chords that bound ``λ·ρ``; their error falls with its square.
CHORDS = 48

#: Difference of mean ``ln w`` below which all networks count as having the same.
_POINT = 1e-9


class Lines(NamedTuple):
    """Lines in (L, P) whose highest is nowhere below ``λ·ρ``: slopes by scored layer and by ``ln w``, both (lines,)."""

    layers: FloatArray
    log_widths: FloatArray

    def at(self, layers: int, log_widths: float) -> FloatArray:
        """Return the value of every line at L = ``layers`` and P = ``log_widths``, (lines,)."""
        return self.layers * layers + self.log_widths * log_widths


class LinearRelaxation(NamedTuple):
    """Relaxed networks of one resolution: their fitness is replaced by sums over blocks that are nowhere below it.

    Attributes:
        plan: the networks; their last cost is ``per_layer·L − P``, what they lack of the ``ln w`` that ``ρ ≤ ρ0`` asks.
        depths: depths that a stage may have.
        slopes: least and most gain of entropy from each stage on for a unit of ``ln w`` before it, (stages + 1, 2).
        lines: upper bounds on ``λ·ρ``.
        per_layer: what a scored layer adds to the last cost.
        lack: limit on the last cost, which all networks with ``ρ ≤ ρ0`` meet.
        most: most of the first cost that a network has.
    """

    plan: Plan
    depths: tuple[int, ...]
    slopes: FloatArray
    lines: Lines
    per_layer: float
    lack: float
    most: float

    def limits(self, limits: FloatArray) -> FloatArray:
        """Return ``limits`` (costs,) with the limit on the last cost appended."""
        return np.append(limits, self.lack)

    def costs(self, costs: FloatArray, layers: int, log_widths: FloatArray) -> FloatArray:
        """Return ``costs`` (costs, N) of labels with ``layers`` scored layers, the last cost appended."""
        return np.vstack([costs, self.per_layer * layers - log_widths])


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """Most that completions add to the relaxed fitness less priced costs, for each of K rows of prices.

    Attributes:
        prices: (K, costs).
        inside: after each block of each stage, (K, lines, output widths).
        before: before each stage, (K, lines, input widths); after the last stage, minus the head's priced costs.
    """

    prices: FloatArray
    inside: tuple[tuple[FloatArray, ...], ...]
    before: tuple[FloatArray, ...]

    def start(self, linear: LinearRelaxation) -> FloatArray:
        """Return the bounds on whole networks, (K,)."""
        stem, lines = linear.plan.stem, linear.lines
        added = np.multiply.outer(lines.layers, stem.layers) + np.multiply.outer(lines.log_widths, stem.log_widths)
        gained = stem.gains - self.prices @ stem.costs
        bounds: FloatArray = (self.before[0] + added + gained[:, None, :]).max(axis=(1, 2))
        return bounds


def linear_of(
    plan: Plan, space_bounds: SpaceBounds, depths: tuple[int, ...], settings: FitnessSettings
) -> LinearRelaxation:
    """Return the linear relaxation of a plan's networks."""
    slopes = np.zeros((len(plan.stages) + 1, 2))
    if settings.entropy == "prefix":
        # A stage's ln w counts in every later stage too.
        weights = np.array([(stage.weights.min(), stage.weights.max()) for stage in plan.stages])
        slopes[:-1] = weights[::-1].cumsum(axis=0)[::-1]
    layers, low, high = _extremes(plan, space_bounds)
    per_layer, lack = _needed(effectiveness_bound(settings), layers, low)
    most = max(float(ahead.most[0]) for ahead in space_bounds.before[0].by_width)
    lines = _lines(settings.effectiveness_weight, float((low / layers).min()), float((high / layers).max()))
    return LinearRelaxation(_with_lack(plan, per_layer), depths, slopes, lines, per_layer, lack, most)


def relax(linear: LinearRelaxation, prices: FloatArray) -> Relaxation:
    """Solve the relaxation at each of K rows of ``prices``, (K, costs), from the last block backwards.

    For one line the relaxed fitness is a sum over blocks, so the best completion of a width is the best option of the
    next block plus the best completion after it. Lines stay apart until the end: the maximum over completions of the
    highest line is the highest of the lines' maxima.
    """
    plan, lines, shape = linear.plan, linear.lines, (len(prices), len(linear.lines.layers))
    before = [np.repeat(-(prices @ plan.head)[:, None, :], shape[1], axis=1)]
    inside: list[tuple[FloatArray, ...]] = []
    for stage, later in zip(reversed(plan.stages), linear.slopes[:0:-1, 1], strict=True):
        more = _gains_of_slots(stage.later, later, prices, lines)
        ahead: list[FloatArray] = []
        for d in reversed(range(linear.depths[-1])):
            ways = [before[0][:, :, stage.ends]] if d + 1 in linear.depths else []
            if ahead:
                ways.append(more[d] + ahead[0])
            ahead.insert(0, np.maximum(*ways) if len(ways) > 1 else ways[0])
        first = _gain(stage.first, later, prices, lines) - stage.falls
        inside.insert(0, tuple(ahead))
        before.insert(0, (first + ahead[0][:, :, None, :]).max(axis=-1))
    return Relaxation(prices, tuple(inside), tuple(before))


def _gains_of_slots(slots: Sequence[BlockChoices], later: float, prices: FloatArray, lines: Lines) -> list[FloatArray]:
    """Return the most gain of each later block, each (K, lines, widths); slots that share options share the work."""
    found: list[FloatArray] = []
    for slot, options in enumerate(slots):
        known = slot > 0 and options is slots[slot - 1]
        found.append(found[-1] if known else _gain(options, later, prices, lines))
    return found


def _gain(options: BlockChoices, later: float, prices: FloatArray, lines: Lines) -> FloatArray:
    """Return the most gain of one block, (K, lines, widths…), with ``later`` entropy for each unit of its ``ln w``."""
    shape = options.gains.shape
    paid = (prices @ options.costs.reshape(len(options.costs), -1)).reshape(len(prices), *shape)
    gains = options.gains + later * options.log_widths - paid
    found = np.empty((len(prices), len(lines.layers), *shape[:-1]))
    for line, (layers, log_widths) in enumerate(zip(*lines, strict=True)):
        (gains + (layers * options.layers + log_widths * options.log_widths)).max(axis=-1, out=found[:, line])
    return found


def _extremes(plan: Plan, space_bounds: SpaceBounds) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return numbers of scored layers of whole networks, with their least and most sums of ``ln w``, all (n,)."""
    found = [
        (ahead.layers + layers, ahead.low + log_width, ahead.high + log_width)
        for ahead, layers, log_width in zip(
            space_bounds.before[0].by_width, plan.stem.layers, plan.stem.log_widths, strict=True
        )
    ]
    layers, low, high = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return layers, low, high


def _needed(bound: float, layers: IntArray, low: FloatArray) -> tuple[float, float]:
    """Return a and b of ``a·L − P ≤ b``, which all networks with ``ρ ≤ ρ0`` meet; (0, ∞) if ρ0 sets none.

    ``L·ln(L/ρ0)`` is convex in L with derivative ``1 + ln(L/ρ0)``, so its tangent at L* lies below it:
    ``P ≥ L·ln(L/ρ0) ≥ (1 + ln(L*/ρ0))·L − L*``. Hence a = 1 + ln(L*/ρ0) and b = L*.
    """
    if bound <= 0 or bool((low >= layers * np.log(layers / bound)).all()):
        return 0.0, math.inf
    # Any L* is valid. Where limits on costs and on ρ both bind, networks are deep and narrow: near the most layers.
    touching = float(layers.max())
    return 1 + math.log(touching / bound), touching


def _with_lack(plan: Plan, per_layer: float) -> Plan:
    """Return the plan with ``per_layer·layers − ln w`` of every part appended as the last cost."""

    def lacking(options: BlockChoices) -> BlockChoices:
        lack = per_layer * options.layers - options.log_widths
        return options._replace(costs=np.concatenate([options.costs, lack[None]]))

    def all_lacking(slots: tuple[BlockChoices, ...]) -> tuple[BlockChoices, ...]:
        found: list[BlockChoices] = []
        for slot, options in enumerate(slots):
            found.append(found[-1] if slot and options is slots[slot - 1] else lacking(options))
        return tuple(found)

    stages = tuple(
        dataclasses.replace(stage, first=lacking(stage.first), later=all_lacking(stage.later)) for stage in plan.stages
    )
    head = np.concatenate([plan.head, np.zeros((1, plan.head.shape[1]))])
    return Plan(lacking(plan.stem), stages, head)


def _lines(weight: float, low: float, high: float) -> Lines:
    """Return lines above ``λ·ρ = λ·L·exp(−y)``, where the mean ``ln w`` y = P/L lies between ``low`` and ``high``.

    A line ``u + v·y`` above ``λ·exp(−y)`` gives ``λ·ρ ≤ u·L + v·P``, as L > 0.
    """
    if weight == 0:
        return Lines(np.zeros(1), np.zeros(1))
    if weight < 0 or high - low < _POINT:
        # For λ < 0 the function λ·exp(−y) is concave: it lies below any of its tangents, here the one in the middle.
        middle = (low + high) / 2
        steep = -weight * np.exp(np.array([-middle]))
        return Lines(-steep * (1 + middle), steep)
    # A convex function lies below its chord between two knots, so everywhere below the highest of all chords. The gap
    # is about h²·exp(−y)/8 for a step h: steps as wide as exp(y/2), equal ones in exp(−y/2), make all gaps the same.
    knots = -2 * np.log(np.linspace(math.exp(-low / 2), math.exp(-high / 2), CHORDS + 1))
    values = np.exp(-knots)
    steep = weight * np.diff(values) / np.diff(knots)
    return Lines(weight * values[:-1] - steep * knots[:-1], steep)
