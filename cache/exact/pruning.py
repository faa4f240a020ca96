"""Which labels of a state the exact solver keeps: those that some completion may still make a best network."""

import dataclasses
from typing import NamedTuple

import numpy as np

from fedpareto.cache.dominance import non_dominated
from fedpareto.cache.exact.bounds import ROUNDING, Bounds, Demand, leading, promising
from fedpareto.cache.exact.labels import Labels, State
from fedpareto.cache.exact.outlook import BoundsByWidth, CompletionBounds, SpaceBounds
from fedpareto.cache.exact.relaxation import LinearRelaxation, relax
from fedpareto.fitness.score import effectiveness_bound
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings


@dataclasses.dataclass(frozen=True)
class SearchGoal:
    """What is searched for.

    Attributes:
        settings: weights of the fitness.
        limits: the most of every cost, (costs,).
        sweep: whether the best network is wanted at every value of the first cost, not only the best of all.
        beam: labels a state keeps at most; an answer found with it is no proof.
    """

    settings: FitnessSettings
    limits: FloatArray
    sweep: bool
    beam: int | None = None


class Asked(NamedTuple):
    """Rows of prices, (K, costs), and what is asked of a network at each."""

    prices: FloatArray
    demand: Demand


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the networks of one resolution: after some blocks of a stage, or between two stages.

    Attributes:
        ahead: what completions may add.
        slopes: least and most that entropy gains later for each unit of P, the sum of ``ln w``.
        stages: number of stages.
        bounds: what a label has to promise, if anything.
    """

    ahead: BoundsByWidth
    slopes: FloatArray
    stages: int
    bounds: Bounds | None


class Places(NamedTuple):
    """``inside[s][d]`` is the place after block d (0 the first) of stage s, ``before[s]`` that before stage s."""

    inside: tuple[tuple[Position, ...], ...]
    before: tuple[Position, ...]


class _Final(NamedTuple):
    """For each number L of scored layers that complete networks may have: the least and most P added, all (m,)."""

    layers: IntArray
    low: FloatArray
    high: FloatArray


def places_of(linear: LinearRelaxation, horizon: SpaceBounds, asked: Asked | None) -> Places:
    """Return the places of the networks of one resolution; without ``asked``, labels have nothing to promise."""
    slopes, stages = linear.slopes, len(linear.plan.stages)
    relaxation = None if asked is None else relax(linear, asked.prices)

    def place(found: BoundsByWidth, s: int, d: int | None) -> Position:
        here, bounds = slopes[s if d is None else s + 1], None
        if asked is not None and relaxation is not None:
            gains = relaxation.before[s] if d is None else relaxation.inside[s][d]
            bounds = Bounds(asked.prices, gains, linear, float(here[1]), asked.demand)
        return Position(found, here, stages, bounds)

    return Places(
        tuple(tuple(place(found, s, d) for d, found in enumerate(stage)) for s, stage in enumerate(horizon.inside)),
        tuple(place(found, s, None) for s, found in enumerate(horizon.before)),
    )


def surviving(target: SearchGoal, place: Position, state: State, labels: Labels) -> IntArray:
    """Return the indices of the labels to keep."""
    outlook = place.ahead.outlooks[state.width]
    final = _Final(state.layers + outlook.layers, state.stem + outlook.low, state.stem + outlook.high)
    needed = _least_log_widths(target, final)
    index = np.flatnonzero(
        (labels.costs + outlook.least[:, None] <= target.limits[:, None]).all(axis=0)
        & (labels.log_widths >= (needed - final.high).min() - ROUNDING)
    )
    if target.beam is None:
        index = index[_promising(target, place, state, labels.take(index))]
    if not len(index):
        return index
    chosen = labels.take(index)
    # With this much P every completion has ρ ≤ ρ0.
    enough = float((needed - final.low).max())
    points = _costs(target, outlook, chosen) + _values(target, place, chosen, final, enough)
    index = index[non_dominated(np.stack(points))]
    if target.beam is not None:
        index = index[_leading(target, place, state, labels.take(index), target.beam)]
    return index


def _promising(target: SearchGoal, place: Position, state: State, labels: Labels) -> IntArray:
    """Return the indices of the labels that promise what is asked."""
    if place.bounds is None or not len(labels.record):
        return np.arange(len(labels.record))
    excess = place.bounds.excess(state, labels, _irregularity(target, place, state))
    first = labels.costs[0] + place.ahead.outlooks[state.width].least[0]
    return np.flatnonzero(promising(place.bounds, excess, first))


def _leading(target: SearchGoal, place: Position, state: State, labels: Labels, count: int) -> IntArray:
    """Return the indices of the labels that promise most."""
    if place.bounds is None:
        raise ValueError("a beam needs bounds to choose by")
    excess = place.bounds.excess(state, labels, _irregularity(target, place, state))
    return leading(place.bounds, excess, labels.costs[0], count)


def _irregularity(target: SearchGoal, place: Position, state: State) -> float:
    """Return the least ``ω·Q`` of the completions of a state."""
    depths, squares = (np.array([state.depths, state.squares]) + place.ahead.depths).T
    irregularity = np.exp(squares / place.stages - (depths / place.stages) ** 2)
    return float((target.settings.depth_penalty * irregularity).min())


def _least_log_widths(target: SearchGoal, final: _Final) -> FloatArray:
    """Return the least P of a complete network with ``ρ ≤ ρ0``, by its number of layers, (m,)."""
    bound = effectiveness_bound(target.settings)
    if bound <= 0:
        return np.full(len(final.layers), np.inf)
    needed: FloatArray = np.log(final.layers / bound) * final.layers
    return needed


def _costs(target: SearchGoal, outlook: CompletionBounds, labels: Labels) -> list[FloatArray]:
    """Return the costs to compare, negated: those that may matter."""
    rows = []
    for number, (cost, limit) in enumerate(zip(labels.costs, target.limits, strict=True)):
        # Below this no completion reaches the limit: to have less is no better.
        harmless = -np.inf if target.sweep and number == 0 else limit - outlook.most[number]
        row = np.maximum(cost, harmless)
        if row.min() < row.max():
            rows.append(-row)
    return rows


def _values(target: SearchGoal, place: Position, labels: Labels, final: _Final, enough: float) -> list[FloatArray]:
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
