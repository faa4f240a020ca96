"""Pruning of labels in the exact solver: keeps those that some completion may still turn into an optimal network.

A label is dropped for one of three reasons: no completion meets the limits, no completion is as fit as a known
network, or another label of the state dominates it with every completion. Each is proven where it is decided.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from fedpareto.cache.dominance import non_dominated
from fedpareto.cache.exact.bounds import ROUNDING, Bounds, Demand, leading, promising
from fedpareto.cache.exact.completion_bounds import BoundsByWidth, CompletionBounds, SpaceBounds
from fedpareto.cache.exact.labels import Labels, State
from fedpareto.cache.exact.relaxation import LinearRelaxation, relax
from fedpareto.fitness.score import effectiveness_bound
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings


@dataclasses.dataclass(frozen=True)
class SearchGoal:
    """The goal of a solve: the weights of the fitness, the limits, and whether one optimum or a front is wanted.

    Attributes:
        settings: weights of the fitness.
        limits: upper limits on every cost, (costs,).
        sweep: true if the best network is wanted at every value of the first cost, false if only the best of all.
        beam: most labels that a state keeps; None for all. What is found with a beam is not proven to be optimal.
    """

    settings: FitnessSettings
    limits: FloatArray
    sweep: bool
    beam: int | None = None


class Asked(NamedTuple):
    """Rows of prices, (K, costs), and the demand on a network at each row."""

    prices: FloatArray
    demand: Demand


@dataclasses.dataclass(frozen=True)
class Position:
    """Position in the networks of one resolution: after some blocks of a stage, or between two stages.

    Attributes:
        ahead: bounds on what completions add.
        slopes: least and most gain of entropy in later stages for each unit of P, the sum of ``ln w`` so far, (2,).
        stages: number of stages.
        bounds: price bounds and the demand that a label must be able to meet; None for no demand.
    """

    ahead: BoundsByWidth
    slopes: FloatArray
    stages: int
    bounds: Bounds | None


class Places(NamedTuple):
    """All positions: ``inside[s][d]`` after block d (from 0) of stage s, ``before[s]`` before stage s."""

    inside: tuple[tuple[Position, ...], ...]
    before: tuple[Position, ...]


class _Final(NamedTuple):
    """Numbers L of scored layers of complete networks, and bounds on the P added until then, all (m,)."""

    layers: IntArray
    low: FloatArray
    high: FloatArray


def places_of(linear: LinearRelaxation, ahead: SpaceBounds, asked: Asked | None) -> Places:
    """Return the positions in the networks of one resolution; without ``asked``, no demand is made on labels."""
    slopes, stages = linear.slopes, len(linear.plan.stages)
    relaxation = None if asked is None else relax(linear, asked.prices)

    def place(found: BoundsByWidth, s: int, d: int | None) -> Position:
        here, bounds = slopes[s if d is None else s + 1], None
        if asked is not None and relaxation is not None:
            gains = relaxation.before[s] if d is None else relaxation.inside[s][d]
            bounds = Bounds(asked.prices, gains, linear, float(here[1]), asked.demand)
        return Position(found, here, stages, bounds)

    return Places(
        tuple(tuple(place(found, s, d) for d, found in enumerate(stage)) for s, stage in enumerate(ahead.inside)),
        tuple(place(found, s, None) for s, found in enumerate(ahead.before)),
    )


def surviving(target: SearchGoal, place: Position, state: State, labels: Labels) -> IntArray:
    """Return the indices of the labels of one state that are kept."""
    ahead = place.ahead.by_width[state.width]
    final = _Final(state.layers + ahead.layers, state.stem + ahead.low, state.stem + ahead.high)
    needed = _least_log_widths(target, final)
    # Limits: every completion adds at least ``least`` to a cost and, ending with L layers, at most ``high`` to P. A
    # label with cost + least > limit, or with P + high < L·ln(L/ρ0) for every L, has no completion within the limits.
    index = np.flatnonzero(
        (labels.costs + ahead.least[:, None] <= target.limits[:, None]).all(axis=0)
        & (labels.log_widths >= (needed - final.high).min() - ROUNDING)
    )
    # Price bounds are proofs (see ``bounds``), but in the rough pass they only rank labels, at the end.
    if target.beam is None:
        index = index[_promising(target, place, state, labels.take(index))]
    if not len(index):
        return index
    chosen = labels.take(index)
    # Every completion adds at least ``low`` to P, so with this much P all of them have ρ ≤ ρ0.
    enough = float((needed - final.low).max())
    # Dominance: if a is at least as good as b in all of these coordinates then, for every completion x, a + x is
    # within the limits where b + x is, and F(a + x) ≥ F(b + x); in a sweep it also has no more of the first cost.
    # So b is not needed. Of equal labels one stays.
    points = _costs(target, ahead, chosen) + _values(target, place, chosen, final, enough)
    index = index[non_dominated(np.stack(points))]
    if target.beam is not None:
        index = index[_leading(target, place, state, labels.take(index), target.beam)]
    return index


def _promising(target: SearchGoal, place: Position, state: State, labels: Labels) -> IntArray:
    """Return the indices of the labels that may meet the demand at a position."""
    if place.bounds is None or not len(labels.record):
        return np.arange(len(labels.record))
    excess = place.bounds.excess(state, labels, _irregularity(target, place, state))
    first = labels.costs[0] + place.ahead.by_width[state.width].least[0]
    return np.flatnonzero(promising(place.bounds, excess, first))


def _leading(target: SearchGoal, place: Position, state: State, labels: Labels, count: int) -> IntArray:
    """Return the indices of the ``count`` labels that may exceed the demand most."""
    if place.bounds is None:
        raise ValueError("a beam needs bounds to choose by")
    excess = place.bounds.excess(state, labels, _irregularity(target, place, state))
    return leading(place.bounds, excess, labels.costs[0], count)


def _irregularity(target: SearchGoal, place: Position, state: State) -> float:
    """Return the least ``ω·Q`` of all completions of a state, Q = exp(Var(depths)) with Var = Σd²/S − (Σd/S)²."""
    depths, squares = (np.array([state.depths, state.squares]) + place.ahead.depths).T
    irregularity = np.exp(squares / place.stages - (depths / place.stages) ** 2)
    return float((target.settings.depth_penalty * irregularity).min())


def _least_log_widths(target: SearchGoal, final: _Final) -> FloatArray:
    """Return the least P of a complete network with ``ρ ≤ ρ0``, L·ln(L/ρ0), by its number of layers L, (m,)."""
    bound = effectiveness_bound(target.settings)
    if bound <= 0:
        return np.full(len(final.layers), np.inf)
    needed: FloatArray = np.log(final.layers / bound) * final.layers
    return needed


def _costs(target: SearchGoal, ahead: CompletionBounds, labels: Labels) -> list[FloatArray]:
    """Return the costs that may still matter, negated so that more is better, each (N,)."""
    rows = []
    for number, (cost, limit) in enumerate(zip(labels.costs, target.limits, strict=True)):
        # A label below limit − most stays within the limit with every completion, so having even less is no merit.
        # Labels that are alike in this way can dominate each other, which leaves far fewer. In a sweep less of the
        # first cost always counts.
        harmless = -np.inf if target.sweep and number == 0 else limit - ahead.most[number]
        row = np.maximum(cost, harmless)
        if row.min() < row.max():
            rows.append(-row)
    return rows


def _values(target: SearchGoal, place: Position, labels: Labels, final: _Final, enough: float) -> list[FloatArray]:
    """Return the other coordinates to compare, each (N,); from ``enough`` P on, ``ρ ≤ ρ0`` is certain.

    For two labels a, b and any completion x, the mean value theorem gives a t with
    ``F(a + x) − F(b + x) = (E_a − E_b) + t·(P_a − P_b)``, where t is the slope of later entropy in P plus
    ``−λ·exp(−P/L)`` for some P between the two. With ``low ≤ t ≤ high`` for all x, the difference is linear in t, so it
    is at least 0 for every t if it is at both ends: if ``E + low·P`` and ``E + high·P`` are no less for a than for b.
    """
    weight, log_widths = target.settings.effectiveness_weight, labels.log_widths
    # −ρ rises with P at the rate exp(−P/L), which is greatest for the least final P and least for the greatest.
    steepest = np.exp(-(log_widths.min() + final.low) / final.layers).max()
    flattest = np.exp(-(log_widths.max() + final.high) / final.layers).min()
    low, high = place.slopes + np.sort([-weight * steepest, -weight * flattest])
    values = [labels.entropy + low * log_widths]
    if low < high:
        # Where ρ ≤ ρ0 may fail, a must have at least b's P. Then (t − low)·(P_a − P_b) ≥ 0: ``E + low·P`` is enough.
        values.append(labels.entropy + high * log_widths if log_widths.min() >= enough else log_widths)
    elif log_widths.min() < enough:
        # t is known. P matters for ρ ≤ ρ0 alone, and only up to what is enough.
        values.append(np.minimum(log_widths, enough))
    return values
