"""Predictor-free search for the architecture of highest analytic fitness within limits. No torch, no training.

Predictor-free means that no model of accuracy is trained: the fitness is a formula. So the search can be exact, by the
space's Pareto frontier or by the exact solver.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedpareto.cache.costs.cost import count_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.exact.frontier import Frontier
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.infeasible import infeasibility_error
from fedpareto.cache.exact.solver import SpaceTooLargeError, rounding, solve_best, solve_cheapest
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode_all
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Answer:
    """The architecture a search found.

    Attributes:
        entry: the architecture with its costs and fitness.
        solver: name of the solver that found it; ``given`` if it was given.
        frontier: the frontier of the space, if it could be computed.
    """

    entry: CacheEntry
    solver: Literal["exact", "nsga2", "given"]
    frontier: Frontier | None

    @property
    def certified(self) -> bool:
        """True if it is proven that no network within the limits has a higher fitness."""
        return self.solver == "exact"

    @property
    def next_better(self) -> CacheEntry | None:
        """The network of fewest MACs among those of higher fitness, if one is known.

        If the answer is certified, it lies beyond the limits.
        """
        if self.frontier is None:
            return None
        above = self.entry.fitness + rounding(self.entry.fitness)
        index = self.frontier.cheapest_reaching(float(np.nextafter(above, np.inf)))
        return None if index is None else self.frontier.entry(index)


def search(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    known: Sequence[CacheEntry] = (),
    seed: int = 0,
    listener: ProgressListener = SILENT,
) -> Answer:
    """Search the fittest architecture within upper ``limits`` and ``ρ ≤ ρ0``.

    The search is exact: it uses the space's stored frontier or the exact solver. Only a space too large for these is
    searched with pymoo, from the ``known`` entries and any known part of the frontier; the listener is told.

    Raises:
        BudgetError: no network meets the limits; it names the limit that binds and the nearest network.
    """
    frontier = None
    try:
        frontier = load_or_compute_frontier(space, fitness, listener)
        return Answer(search_exactly(frontier, limits, listener), "exact", frontier)
    except SpaceTooLargeError as error:
        from fedpareto.search.query.evolution import DEFAULT_SETTINGS, evolve  # noqa: PLC0415 - the exact search does without pymoo

        listener.remark(f"{error}; searching with NSGA-II, without a certificate")
        start = encode_all(space, [entry.architecture for entry in known])
        start = start if frontier is None else np.concatenate([frontier.genes, start])
        settings = dataclasses.replace(DEFAULT_SETTINGS, seed=seed)
        return Answer(evolve(space, fitness, limits, start, settings), "nsga2", frontier)


def search_cheapest(
    space: SearchSpace, fitness: FitnessSettings, least: float, limits: Limits, listener: ProgressListener = SILENT
) -> Answer:
    """Search the architecture of fewest MACs with at least a given fitness within upper ``limits``; certified.

    Raises:
        BudgetError: no network within the limits is so fit.
        SpaceTooLargeError: the space is too large to be solved.
    """
    try:
        frontier = load_or_compute_frontier(space, fitness, listener)
        entry = _cheapest(frontier, least, dataclasses.replace(limits, macs=None), listener)
        if limits.macs is None or entry.macs <= limits.macs:
            return Answer(entry, "exact", frontier)
        highest = search_exactly(frontier, limits, listener).fitness
    except SpaceTooLargeError as error:
        raise SpaceTooLargeError(f"{error}; search for the highest fitness within a budget instead") from error
    raise BudgetError(
        f"fitness {least:g} takes at least {entry.macs:,} MACs ({format_quantity(entry.macs)}), more than the "
        f"{limits.macs:,} allowed, within which the highest is {highest:.1f}; the nearest network is "
        f"{entry.architecture}"
    )


def _cheapest(frontier: Frontier, least: float, others: Limits, listener: ProgressListener) -> CacheEntry:
    """Return the network of fewest MACs with ``least`` fitness within limits on ``others``."""
    space, fitness = frontier.space, frontier.fitness
    index = frontier.cheapest_reaching(least)
    if index is not None:
        genes, floor = frontier.genes[[index]], float(frontier.macs[index])
        if others.violates(space, genes):
            costs = [count_cost(space, "macs"), *others.additive(space)]
            genes = solve_cheapest(space, fitness, costs, least, floor, listener)
        if len(genes):
            return _entry(frontier, genes)
    highest = search_exactly(frontier, others, listener).fitness
    limited = f" with {others.words()}" if others.count else ""
    raise BudgetError(f"no network of {space.name}{limited} has a fitness of {least:g}; the highest is {highest:.1f}")


def search_exactly(frontier: Frontier, limits: Limits, listener: ProgressListener = SILENT) -> CacheEntry:
    """Search the fittest architecture within upper ``limits`` and ``ρ ≤ ρ0``; certified.

    If the frontier's point is within all limits, it is the answer. Otherwise the space is solved under some of the
    limits, with one more that the last answer breaks each time, until none is broken. A network that is fittest under
    some of the limits and within the others is fittest under all of them.

    Raises:
        BudgetError: no network meets the limits; it names the limit that binds and the nearest network.
        SpaceTooLargeError: the space is too large to be solved under the limits.
    """
    space, fitness = frontier.space, frontier.fitness
    index = frontier.best_within(limits.macs)
    if index is None:
        raise infeasibility_error(space, fitness, limits)
    genes = frontier.genes[[index]]
    costs = limits.additive(space)
    # The frontier's point is the fittest within the MACs, so those bind as a rule.
    binding = [] if limits.macs is None else costs[:1]
    while broken := [cost for cost in costs if cost not in binding and cost.of(space, genes)[0] > cost.most]:
        binding.append(max(broken, key=lambda cost: float(cost.of(space, genes)[0]) / cost.most))
        genes = solve_best(space, fitness, binding, listener)
        if not len(genes):
            raise infeasibility_error(space, fitness, limits)
    return _entry(frontier, genes)


def _entry(frontier: Frontier, genes: IntArray) -> CacheEntry:
    (entry,) = make_entries(frontier.space, genes, frontier.fitness)
    return entry
