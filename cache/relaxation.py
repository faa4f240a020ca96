"""Upper bounds on fitness under limits: the limits priced instead of enforced (Lagrangian relaxation).

Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of resources" (1963).

What is left without limits is a sum over blocks but for ``λ·ρ``. That is convex in the scored layers and their
``ln w`` together, so for λ > 0 chords bound it, each of which is a sum over layers; for λ < 0 a tangent does.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from cache.additive import Options, Plan
from cache.outlook import Horizon
from fitness.blocks import FloatArray
from supernet.space import FitnessSettings

#: Chords that follow ``λ·ρ``: its error falls with the square of their number.
CHORDS = 48

#: Means nearer than this are one.
_POINT = 1e-9


class Lines(NamedTuple):
    """Lines whose highest is nowhere below ``λ·ρ``: what a scored layer and a unit of its ``ln w`` add, both (lines,)."""

    layers: FloatArray
    log_widths: FloatArray

    def at(self, layers: int, log_widths: float) -> FloatArray:
        """Return the value of every line, (lines,)."""
        return self.layers * layers + self.log_widths * log_widths


class Linear(NamedTuple):
    """The networks of one resolution with a fitness that is a sum over blocks and no lower than their own.

    ``slopes`` (stages + 1, 2) are the least and most that entropy gains from each place on for a unit of ``ln w``
    so far, ``lines`` bound ``λ·ρ``; depth irregularity is left out.
    """

    plan: Plan
    horizon: Horizon
    depths: tuple[int, ...]
    slopes: FloatArray
    lines: Lines


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

    def start(self, linear: Linear) -> FloatArray:
        """Return the bounds for a whole network, (K,)."""
        stem, lines = linear.plan.stem, linear.lines
        added = np.multiply.outer(lines.layers, stem.layers) + np.multiply.outer(lines.log_widths, stem.log_widths)
        bounds: FloatArray = (self.before[0] + added - (self.prices @ stem.costs)[:, None, :]).max(axis=(1, 2))
        return bounds


def linear_of(plan: Plan, horizon: Horizon, depths: tuple[int, ...], settings: FitnessSettings) -> Linear:
    """Return what bounds the fitness of a plan's networks by sums over blocks."""
    slopes = np.zeros((len(plan.stages) + 1, 2))
    if settings.entropy == "prefix":
        # A stage's ln w counts in every later stage too.
        weights = np.array([(stage.weights.min(), stage.weights.max()) for stage in plan.stages])
        slopes[:-1] = weights[::-1].cumsum(axis=0)[::-1]
    return Linear(plan, horizon, depths, slopes, _lines(settings.effectiveness_weight, *_means(plan, horizon)))


def relax(linear: Linear, prices: FloatArray) -> Relaxation:
    """Return the relaxation at each of K rows of ``prices``, (K, costs)."""
    plan, lines, shape = linear.plan, linear.lines, (len(prices), len(linear.lines.layers))
    before = [np.repeat(-(prices @ plan.head)[:, None, :], shape[1], axis=1)]
    inside: list[tuple[FloatArray, ...]] = []
    for stage, later in zip(reversed(plan.stages), linear.slopes[:0:-1, 1], strict=True):
        more = None if stage.later is None else _gain(stage.later, later, prices, lines)
        ahead: list[FloatArray] = []
        for d in reversed(range(linear.depths[-1])):
            ways = [before[0]] if d + 1 in linear.depths else []
            if ahead and more is not None:
                ways.append(more + ahead[0])
            ahead.insert(0, np.maximum(*ways) if len(ways) > 1 else ways[0])
        first = _gain(stage.first, later, prices, lines) - stage.falls
        inside.insert(0, tuple(ahead))
        before.insert(0, (first + ahead[0][:, :, None, :]).max(axis=-1))
    return Relaxation(prices, tuple(inside), tuple(before))


def _gain(options: Options, later: float, prices: FloatArray, lines: Lines) -> FloatArray:
    """Return the most that one block gains, (K, lines, …) by its widths; ``later`` for each unit of its ``ln w``."""
    shape = options.gains.shape
    paid = (prices @ options.costs.reshape(len(options.costs), -1)).reshape(len(prices), *shape)
    gains = options.gains + later * options.log_widths - paid
    found = np.empty((len(prices), len(lines.layers), *shape[:-1]))
    for line, (layers, log_widths) in enumerate(zip(*lines, strict=True)):
        (gains + (layers * options.layers + log_widths * options.log_widths)).max(axis=-1, out=found[:, line])
    return found


def _means(plan: Plan, horizon: Horizon) -> tuple[float, float]:
    """Return bounds on the mean ``ln w`` of the scored layers of every network."""
    low, high = math.inf, -math.inf
    for width, outlook in enumerate(horizon.before[0].outlooks):
        layers = outlook.layers + plan.stem.layers[width]
        low = min(low, float(((outlook.low + plan.stem.log_widths[width]) / layers).min()))
        high = max(high, float(((outlook.high + plan.stem.log_widths[width]) / layers).max()))
    return low, high


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
