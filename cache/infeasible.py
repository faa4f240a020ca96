"""Why no network meets some limits: the limit that binds, and the network that comes nearest."""

import dataclasses
import math
from collections.abc import Sequence

from cache.additive import COST_NAMES, AdditiveCost, count_cost
from cache.exact import solve_front
from cache.limits import Limits, check_reachable
from supernet.errors import BudgetError
from supernet.genes import decode
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, SearchSpace
from supernet.units import format_quantity


def refusal(space: SearchSpace, fitness: FitnessSettings, limits: Limits) -> BudgetError:
    """Return the error for upper limits that no network with ``ρ ≤ ρ0`` meets.

    It names the limit that would have to be raised by the least share, the others kept, and the network that
    needs no more: both are computed exactly.

    Raises:
        SpaceTooLargeError: the space is too large to be solved.
    """
    try:
        check_reachable(space, limits)
    except BudgetError as error:
        return error
    asked = f"no network of {space.name} has {limits.words()} and effectiveness ρ ≤ {fitness.max_effectiveness:g}"
    costs = limits.additive(space)
    ways = []
    for number, cost in enumerate(costs):
        genes = _least(space, fitness, cost, [*costs[:number], *costs[number + 1 :]])
        if len(genes):
            needed = float(cost.of(space, genes)[0])
            ways.append((needed / cost.limit, number, needed, genes))
    if ways:
        _, number, needed, genes = min(ways, key=lambda way: way[:2])
        binding = costs[number]
        name = COST_NAMES.get(binding.name, binding.name)
        return BudgetError(
            f"{asked}; the limit on {name} binds: the nearest network has {_amount(binding, needed)}, "
            f"{decode(space, genes[0])}"
        )
    genes = _least(space, fitness, count_cost(space, "macs"), [])
    if not len(genes):
        return BudgetError(f"{asked}, whatever its costs; raise max_effectiveness in a fitness.yaml")
    return BudgetError(f"{asked}, nor with one of the limits lifted; the smallest network is {decode(space, genes[0])}")


def _least(
    space: SearchSpace, fitness: FitnessSettings, cost: AdditiveCost, others: Sequence[AdditiveCost]
) -> IntArray:
    """Return (1, genes): the network with the least of ``cost`` within the limits of the others; (0, genes) if none."""
    # Where all networks are equally fit, the front is the cheapest one.
    indifferent = dataclasses.replace(
        fitness, entropy_weights=(0.0,), depth_penalty=0.0, effectiveness_weight=0.0, width_penalty=0.0
    )
    return solve_front(space, indifferent, [dataclasses.replace(cost, limit=math.inf), *others])


def _amount(cost: AdditiveCost, value: float) -> str:
    if cost.name in COST_NAMES:
        return f"{int(value):,} ({format_quantity(value)})"
    return f"{value:.6g} {cost.unit}".rstrip()
