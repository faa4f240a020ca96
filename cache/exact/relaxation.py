"""Upper bounds on fitness under limits: the limits priced instead of enforced (Lagrangian relaxation).

Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of resources" (1963).

``ρ ≤ ρ0`` is one more limit, on what networks lack of the ``ln w`` it takes: ``L·ln(L/ρ0) − P ≤ 0``, of which
tangents in L are sums over layers. What is left without limits is a sum over blocks but for ``λ·ρ``. That is convex
in the scored layers and their ``ln w`` together, so for λ > 0 chords bound it, each of which is a sum over layers;
for λ < 0 a tangent does.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedpareto.cache.exact.outlook import SpaceBounds
from fedpareto.cache.exact.plan import BlockChoices, Plan
from fedpareto.fitness.score import effectiveness_bound
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings

#: Chords that follow ``λ·ρ``: its error falls with the square of their number.
CHORDS = 48

#: Means nearer than this are one.
_POINT = 1e-9


class Lines(NamedTuple):
    """Lines whose highest is nowhere below ``λ·ρ``: what a scored layer and a unit of ``ln w`` add, both (lines,)."""

    layers: FloatArray
    log_widths: FloatArray

    def at(self, layers: int, log_widths: float) -> FloatArray:
        """Return the value of every line, (lines,)."""
        return self.layers * layers + self.log_widths * log_widths


class LinearRelaxation(NamedTuple):
    """The networks of one resolution with a fitness that is a sum over blocks and no lower than their own.

    Attributes:
        plan: the networks; their last cost is what they lack of the ``ln w`` that ``ρ ≤ ρ0`` takes.
        depths: of the stages.
        slopes: the least and most that entropy gains from each place on for a unit of ``ln w``, (stages + 1, 2).
        lines: bounds on ``λ·ρ``.
        per_layer: what a scored layer adds to the last cost; a unit of ``ln w`` takes 1 away.
        lack: the most of the last cost, which holds of all networks with ``ρ ≤ ρ0``.
        most: the most of the first cost.
    """

    plan: Plan
    depths: tuple[int, ...]
    slopes: FloatArray
    lines: Lines
    per_layer: float
    lack: float
    most: float

    def limits(self, limits: FloatArray) -> FloatArray:
        """Return ``limits`` on costs with that on the last one."""
        return np.append(limits, self.lack)

    def costs(self, costs: FloatArray, layers: int, log_widths: FloatArray) -> FloatArray:
        """Return ``costs`` (costs, N) of networks of so many scored layers with the last one."""
        return np.vstack([costs, self.per_layer * layers - log_widths])


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """The most that fitness less priced costs can still gain, for each of K rows of prices.

    Attributes:
        prices: (K, costs).
        inside: by stage and blocks so far, (K, lines, output widths); the next block may be any.
        before: by stage, (K, lines, input widths); after the last stage, less the head's priced costs.
    """

    prices: FloatArray
    inside: tuple[tuple[FloatArray, ...], ...]
    before: tuple[FloatArray, ...]

    def start(self, linear: LinearRelaxation) -> FloatArray:
        """Return the bounds for a whole network, (K,)."""
        stem, lines = linear.plan.stem, linear.lines
        added = np.multiply.outer(lines.layers, stem.layers) + np.multiply.outer(lines.log_widths, stem.log_widths)
        gained = stem.gains - self.prices @ stem.costs
        bounds: FloatArray = (self.before[0] + added + gained[:, None, :]).max(axis=(1, 2))
        return bounds


def linear_of(plan: Plan, horizon: SpaceBounds, depths: tuple[int, ...], settings: FitnessSettings) -> LinearRelaxation:
    """Return what bounds the fitness of a plan's networks by sums over blocks."""
    slopes = np.zeros((len(plan.stages) + 1, 2))
    if settings.entropy == "prefix":
        # A stage's ln w counts in every later stage too.
        weights = np.array([(stage.weights.min(), stage.weights.max()) for stage in plan.stages])
        slopes[:-1] = weights[::-1].cumsum(axis=0)[::-1]
    layers, low, high = _extremes(plan, horizon)
    per_layer, lack = _needed(effectiveness_bound(settings), layers, low)
    most = max(float(outlook.most[0]) for outlook in horizon.before[0].outlooks)
    lines = _lines(settings.effectiveness_weight, float((low / layers).min()), float((high / layers).max()))
    return LinearRelaxation(_with_lack(plan, per_layer), depths, slopes, lines, per_layer, lack, most)


def relax(linear: LinearRelaxation, prices: FloatArray) -> Relaxation:
    """Return the relaxation at each of K rows of ``prices``, (K, costs)."""
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
    """Return the most that each later block gains; slots that share their options share the work."""
    found: list[FloatArray] = []
    for slot, options in enumerate(slots):
        known = slot > 0 and options is slots[slot - 1]
        found.append(found[-1] if known else _gain(options, later, prices, lines))
    return found


def _gain(options: BlockChoices, later: float, prices: FloatArray, lines: Lines) -> FloatArray:
    """Return the most that one block gains, (K, lines, …) by its widths; ``later`` for each unit of its ``ln w``."""
    shape = options.gains.shape
    paid = (prices @ options.costs.reshape(len(options.costs), -1)).reshape(len(prices), *shape)
    gains = options.gains + later * options.log_widths - paid
    found = np.empty((len(prices), len(lines.layers), *shape[:-1]))
    for line, (layers, log_widths) in enumerate(zip(*lines, strict=True)):
        (gains + (layers * options.layers + log_widths * options.log_widths)).max(axis=-1, out=found[:, line])
    return found


def _extremes(plan: Plan, horizon: SpaceBounds) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return numbers of scored layers of whole networks, and their least and most sums of ``ln w``, all (n,)."""
    found = [
        (outlook.layers + layers, outlook.low + log_width, outlook.high + log_width)
        for outlook, layers, log_width in zip(
            horizon.before[0].outlooks, plan.stem.layers, plan.stem.log_widths, strict=True
        )
    ]
    layers, low, high = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return layers, low, high


def _needed(bound: float, layers: IntArray, low: FloatArray) -> tuple[float, float]:
    """Return a and b of ``a·L − P ≤ b``, true of all networks with ``ρ ≤ ρ0``: a tangent of ``L·ln(L/ρ0) − P ≤ 0``."""
    if bound <= 0 or bool((low >= layers * np.log(layers / bound)).all()):
        return 0.0, math.inf
    # Where limits on costs meet the one on ρ, networks are deep and narrow.
    touching = float(layers.max())
    return 1 + math.log(touching / bound), touching


def _with_lack(plan: Plan, per_layer: float) -> Plan:
    """Return the plan with what its parts lack of ``ln w`` as the last cost."""

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
    """Return lines above ``λ·ρ = λ·L·exp(−y)``, the mean ``ln w`` y being between ``low`` and ``high``."""
    if weight == 0:
        return Lines(np.zeros(1), np.zeros(1))
    if weight < 0 or high - low < _POINT:
        # One tangent bounds a concave function.
        middle = (low + high) / 2
        steep = -weight * np.exp(np.array([-middle]))
        return Lines(-steep * (1 + middle), steep)
    # Steps in which every chord is as far from the curve.
    knots = -2 * np.log(np.linspace(math.exp(-low / 2), math.exp(-high / 2), CHORDS + 1))
    values = np.exp(-knots)
    steep = weight * np.diff(values) / np.diff(knots)
    return Lines(weight * values[:-1] - steep * knots[:-1], steep)
