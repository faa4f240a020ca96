"""Errors for limits that no network meets: they name the limit that binds and the network that comes nearest."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from fedpareto.cache.costs.cost import COST_NAMES, AdditiveCost, LimitedCost, PeakCost, count_cost
from fedpareto.cache.costs.limits import Limits, check_reachable
from fedpareto.cache.exact.solver import solve_front
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import decode
from fedpareto.supernet.space import SearchSpace


def infeasibility_error(space: SearchSpace, fitness: FitnessSettings, limits: Limits) -> BudgetError:
    """Return the error for upper limits that no network with ``ρ ≤ ρ0`` meets.

    It names the limit that has to be raised by the smallest factor while the others stay, and the network that meets
    the limits then. Both are computed exactly.

    Raises:
        SpaceTooLargeError: the space is too large to be solved.
    """
    try:
        check_reachable(space, limits)
    except BudgetError as error:
        return error
    asked = f"no network of {space.name} has {limits.words()} and effectiveness ρ ≤ {fitness.max_effectiveness:g}"
    costs = limits.costs(space)
    # For each cost, the least amount that any network has within the limits of all others. Raising the limit to it is
    # necessary and enough; the smallest ratio of the two, needed / limit, names the limit that binds.
    remedies = []
    for number, cost in enumerate(costs):
        others = [other.additive() for other in (*costs[:number], *costs[number + 1 :])]
        genes = _least(space, fitness, cost, others)
        if len(genes):
            needed = float(cost.of(space, genes)[0])
            remedies.append((needed / cost.limit, number, needed, genes))
    if remedies:
        _, number, needed, genes = min(remedies, key=lambda remedy: remedy[:2])
        binding = costs[number]
        name = COST_NAMES.get(binding.name, binding.name)
        return BudgetError(
            f"{asked}; the limit on {name} binds: the nearest network has {binding.amount(needed, exact=True)}, "
            f"{decode(space, genes[0])}"
        )
    genes = _least(space, fitness, count_cost(space, "macs"), [])
    if not len(genes):
        return BudgetError(f"{asked}, whatever its costs; raise max_effectiveness in a fitness.yaml")
    return BudgetError(
        f"{asked}, nor with one of the limits lifted: {_alone(space, fitness, costs)}; the smallest network is "
        f"{decode(space, genes[0])}"
    )


def _alone(space: SearchSpace, fitness: FitnessSettings, costs: Sequence[LimitedCost]) -> str:
    """Return a clause with the least amount of every cost among the networks with ``ρ ≤ ρ0``, one cost at a time."""
    least = [cost.amount(float(cost.of(space, _least(space, fitness, cost, []))[0]), exact=True) for cost in costs]
    words = [f"{amount} {COST_NAMES.get(cost.name, cost.name)}" for amount, cost in zip(least, costs, strict=True)]
    return f"the least there is, each by itself, is {', '.join(words)}"


def _least(space: SearchSpace, fitness: FitnessSettings, cost: LimitedCost, others: Sequence[AdditiveCost]) -> IntArray:
    """Return genes whose first row is the network with least ``cost`` within the other limits; no row without any."""
    # A front's first point has the least of the first cost, whatever the fitness, as no point comes before it. Without
    # entropy, Q, ρ, V and θ hardly any other point follows, which makes the solve quick; ρ ≤ ρ0 still holds.
    indifferent = dataclasses.replace(
        fitness,
        entropy_weights=(0.0,),
        depth_penalty=0.0,
        effectiveness_weight=0.0,
        width_penalty=0.0,
        learned=None,
    )
    if isinstance(cost, PeakCost):
        return _lowest_peak(space, indifferent, cost, others)
    return solve_front(space, indifferent, [dataclasses.replace(cost.additive(), limit=math.inf), *others])


def _lowest_peak(
    space: SearchSpace, indifferent: FitnessSettings, cost: PeakCost, others: Sequence[AdditiveCost]
) -> IntArray:
    """Return the network with the lowest peak as ``_least`` does, by bisection over all values a part may have."""
    # A network's peak is one of its parts' values, and whatever is possible within a peak is possible within a higher
    # one. So the least peak is one of these values, and halving them finds it.
    parts = (cost.parts.stem, *itertools.chain.from_iterable(cost.parts.blocks), cost.parts.head)
    peaks = np.unique(np.concatenate(parts))
    macs = count_cost(space, "macs")

    def within(peak: float) -> IntArray:
        return solve_front(space, indifferent, [macs, *others, dataclasses.replace(cost, limit=peak).additive()])

    below, above = -1, len(peaks) - 1
    found = within(float(peaks[above]))
    while len(found) and above - below > 1:
        middle = (below + above) // 2
        genes = within(float(peaks[middle]))
        if len(genes):
            above, found = middle, genes
        else:
            below = middle
    return found[:1]
