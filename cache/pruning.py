"""Which labels of a state the exact solver keeps: those that some completion may still make a best network."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from cache.additive import Plan, Stage
from cache.dominance import non_dominated
from cache.labels import Labels, State
from cache.outlook import Ahead, Horizon, Outlook
from cache.relaxation import tightest
from fitness.blocks import FloatArray
from fitness.score import effectiveness_bound
from supernet.layouts import IntArray
from supernet.space import FitnessSettings

#: What bounds allow for rounding, relative to what they bound.
ROUNDING = 1e-9

#: How often the bounds on ρ and on the entropy it leaves to gain are tightened by one another.
_TIGHTENINGS = 4


@dataclasses.dataclass(frozen=True)
class Target:
    """What is searched for.

    Attributes:
        settings: weights of the fitness.
        limits: the most of every cost, (costs,).
        sweep: whether the best network is wanted at every value of the first cost, not only the best of all.
        beam: labels a state keeps at most; an answer found with it is no proof.
        beat: networks of lower fitness are of no interest.
    """

    settings: FitnessSettings
    limits: FloatArray
    sweep: bool
    beam: int | None = None
    beat: float = -math.inf

    @property
    def relaxed(self) -> bool:
        """Whether what the limits leave to gain decides what is of interest."""
        return self.beam is not None or self.beat > -math.inf


class Prices(NamedTuple):
    """The relaxed limits: a price for each cost (costs,), and what can still be gained by width, prices paid."""

    prices: FloatArray
    gains: FloatArray


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in the networks of one resolution: after some blocks of a stage, or between two stages.

    Attributes:
        ahead: what completions may add.
        slopes: least and most that entropy gains later for each unit of P, the sum of ``ln w``.
        top_slope: no network has more entropy than this for each unit of P.
        stages: number of stages.
        prices: the relaxed limits, if they are used.
    """

    ahead: Ahead
    slopes: FloatArray
    top_slope: float
    stages: int
    prices: Prices | None


class Places(NamedTuple):
    """``inside[s][d]`` is the place after block d (0 the first) of stage s, ``before[s]`` that before stage s."""

    inside: tuple[tuple[Place, ...], ...]
    before: tuple[Place, ...]


class _Final(NamedTuple):
    """For each number L of scored layers that complete networks may have: the least and most P added, all (m,)."""

    layers: IntArray
    low: FloatArray
    high: FloatArray


def places_of(plan: Plan, horizon: Horizon, depths: tuple[int, ...], target: Target) -> Places:
    """Return the places of the networks of one resolution whose stages have one of ``depths`` blocks."""
    slopes = np.zeros((len(plan.stages) + 1, 2))
    if target.settings.entropy == "prefix":
        # A stage's ln w counts in every later stage too.
        weights = np.array([(stage.weights.min(), stage.weights.max()) for stage in plan.stages])
        slopes[:-1] = weights[::-1].cumsum(axis=0)[::-1]
    top_slope = float((slopes[1:, 1] + [_steepest(stage) for stage in plan.stages]).max())
    relaxation = tightest(plan, depths, slopes[1:, 1], target.limits) if target.relaxed else None

    def place(found: Ahead, s: int, d: int | None) -> Place:
        prices = None
        if relaxation is not None:
            prices = Prices(relaxation.prices, relaxation.before[s] if d is None else relaxation.inside[s][d])
        return Place(found, slopes[s if d is None else s + 1], top_slope, len(plan.stages), prices)

    return Places(
        tuple(tuple(place(found, s, d) for d, found in enumerate(stage)) for s, stage in enumerate(horizon.inside)),
        tuple(place(found, s, None) for s, found in enumerate(horizon.before)),
    )


def _steepest(stage: Stage) -> float:
    """Return the most that a block of a stage gains for each unit of its ``ln w``, none of which is 0."""
    options = [stage.first] if stage.later is None else [stage.first, stage.later]
    return max(float((each.gains / each.log_widths).max()) for each in options)


def kept(target: Target, place: Place, state: State, labels: Labels) -> IntArray:
    """Return the indices of the labels to keep."""
    outlook = place.ahead.outlooks[state.width]
    final = _Final(state.layers + outlook.layers, state.stem + outlook.low, state.stem + outlook.high)
    needed = _least_log_widths(target, final)
    index = np.flatnonzero(
        (labels.costs + outlook.least[:, None] <= target.limits[:, None]).all(axis=0)
        & (labels.log_widths >= (needed - final.high).min() - ROUNDING)
    )
    upper = None if place.prices is None else _most_entropy(target, place, place.prices, state.width, labels)
    if upper is not None and len(index):
        index = index[upper[index] >= _least_entropy(target, place, state, labels.log_widths[index], final)]
    if not len(index):
        return index
    chosen = labels.take(index)
    # With this much P every completion has ρ ≤ ρ0.
    enough = float((needed - final.low).max())
    points = _costs(target, outlook, chosen) + _values(target, place, chosen, final, enough)
    index = index[non_dominated(np.stack(points))]
    if target.beam is not None and upper is not None and len(index) > target.beam:
        index = index[np.argsort(-upper[index], kind="stable")[: target.beam]]
    return index


def _least_log_widths(target: Target, final: _Final) -> FloatArray:
    """Return the least P of a complete network with ``ρ ≤ ρ0``, by its number of layers, (m,)."""
    bound = effectiveness_bound(target.settings)
    if bound <= 0:
        return np.full(len(final.layers), np.inf)
    needed: FloatArray = np.log(final.layers / bound) * final.layers
    return needed


def _costs(target: Target, outlook: Outlook, labels: Labels) -> list[FloatArray]:
    """Return the costs to compare, negated: those that may matter."""
    rows = []
    for number, (cost, limit) in enumerate(zip(labels.costs, target.limits, strict=True)):
        # Below this no completion reaches the limit: to have less is no better.
        harmless = -np.inf if target.sweep and number == 0 else limit - outlook.most[number]
        row = np.maximum(cost, harmless)
        if row.min() < row.max():
            rows.append(-row)
    return rows


def _values(target: Target, place: Place, labels: Labels, final: _Final, enough: float) -> list[FloatArray]:
    """Return what to compare beside costs; from ``enough`` P on, ``ρ ≤ ρ0`` is certain."""
    weight, log_widths = target.settings.effectiveness_weight, labels.log_widths
    # The slope of −ρ in P, exp(−P/L), is steepest for the least P.
    steepest = np.exp(-(log_widths.min() + final.low) / final.layers).max()
    flattest = np.exp(-(log_widths.max() + final.high) / final.layers).min()
    low, high = place.slopes + np.sort([-weight * steepest, -weight * flattest])
    values = [labels.entropy + low * log_widths]
    if low < high:
        # Two labels compare either way; if more P is required, only labels with more are compared.
        values.append(labels.entropy + high * log_widths if log_widths.min() >= enough else log_widths)
    elif log_widths.min() < enough:
        values.append(np.minimum(log_widths, enough))
    return values


def _most_entropy(target: Target, place: Place, prices: Prices, width: int, labels: Labels) -> FloatArray:
    """Return an upper bound on the entropy of the completions within the limits, by label, (N,)."""
    priced = prices.prices > 0
    slack = prices.prices[priced] @ (target.limits[priced, None] - labels.costs[priced])
    upper: FloatArray = labels.entropy + place.slopes[1] * labels.log_widths + slack + prices.gains[width]
    return upper


def _least_entropy(target: Target, place: Place, state: State, log_widths: FloatArray, final: _Final) -> float:
    """Return a lower bound on the entropy of a complete network that beats what is to be beaten."""
    settings = target.settings
    depths, squares = (np.array([state.depths, state.squares]) + place.ahead.depths).T
    irregularity = np.exp(squares / place.stages - (depths / place.stages) ** 2)
    rest = target.beat + (settings.depth_penalty * irregularity).min()
    least, most = log_widths.min() + final.low, log_widths.max() + final.high
    weight = settings.effectiveness_weight

    def needed(log_widths: FloatArray) -> float:
        return float(rest - (weight * final.layers * np.exp(-log_widths / final.layers)).max())

    entropy = needed(least if weight > 0 else most)
    if weight > 0 and place.top_slope > 0 and settings.width_penalty >= 0:
        # To have the entropy takes P, and P lowers ρ, which leaves more to entropy.
        for _ in range(_TIGHTENINGS):
            entropy = needed(np.maximum(least, entropy / place.top_slope))
    return entropy - ROUNDING * max(1.0, abs(target.beat))
