"""Construction of a Pareto cache from a search space and limits on MACs."""

import dataclasses
from typing import Any, Literal

from fedpareto.cache.cache_file import Cache
from fedpareto.cache.costs.limits import Limits, check_reachable
from fedpareto.cache.entries import evenly_spaced, make_entries
from fedpareto.cache.exact.frontier import Frontier
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.cache.nsga2.solver import Nsga2Settings, solve_nsga2
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace

Solver = Literal["nsga2", "exact"]


@dataclasses.dataclass(frozen=True)
class SolverSettings:
    """Settings of the solver that finds the entries of a cache.

    Attributes:
        solver: ``exact`` takes them off the frontier; ``nsga2`` searches, from the frontier if it can be computed.
        cold: let NSGA-II search on its own; the frontier then only says how far it stayed behind.
        nsga2: settings of NSGA-II.
    """

    solver: Solver = "nsga2"
    cold: bool = False
    nsga2: Nsga2Settings = dataclasses.field(default_factory=Nsga2Settings)

    def __post_init__(self) -> None:
        if self.solver == "exact" and self.cold:
            raise UserError(
                f"a cold start is one of the nsga2 solver; leave out {option('cold')}, or choose "
                f"{option('solver', 'nsga2')}"
            )


def compute_cache(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    entries: int,
    method: SolverSettings | None = None,
    listener: ProgressListener = SILENT,
) -> Cache:
    """Build a cache of at most ``entries`` entries, spread evenly over the MACs within ``limits`` on MACs.

    Without settings it is found by the default solver.

    Raises:
        BudgetError: fewer than 2 entries asked for, or no network meets the limits.
        SpaceTooLargeError: the exact solver is asked for and the space is too large for it.
    """
    if entries < 2:
        raise BudgetError(f"a cache of {counted(entries, 'entry')} is too small; ask for at least 2")
    check_reachable(space, limits)
    method, weights = method or SolverSettings(), fitness.for_cache()
    frontier = _frontier(space, weights, method, listener)
    generations = None
    if method.cold or frontier is None:
        found, generations = solve_nsga2(space, weights, limits, entries, method.nsga2, listener=listener)
    else:
        within = _within(frontier, limits)
        if method.solver == "exact":
            found = make_entries(space, within.genes[evenly_spaced(within.macs, entries)], weights)
        else:
            # Below its first point the frontier lies outside the limits: what is within them there is not optimal.
            optimal = dataclasses.replace(limits, min_macs=int(within.macs[0]))
            found, generations = solve_nsga2(space, weights, optimal, entries, method.nsga2, within, listener)
    gaps = None if frontier is None else frontier.gaps([e.macs for e in found], [e.fitness for e in found])
    solver_settings = {
        **({} if generations is None else _searched(method, generations)),
        "limits": {"macs": limits.macs, "min_macs": limits.min_macs},
        "entries": entries,
    }
    return Cache(
        space, tuple(found), fitness, method.solver, solver_settings, None if gaps is None else tuple(gaps.tolist())
    )


def _searched(method: SolverSettings, generations: int) -> dict[str, Any]:
    """Return the record of an NSGA-II search in a cache's header: its settings, its generations and why it ended."""
    ended = "generations" if generations == method.nsga2.generations else "gap to the exact frontier is zero"
    settings = {**dataclasses.asdict(method.nsga2), "cold": method.cold}
    return {**settings, "generations_run": generations, "ended_by": ended}


def _frontier(
    space: SearchSpace, weights: FitnessSettings, method: SolverSettings, listener: ProgressListener
) -> Frontier | None:
    try:
        return load_or_compute_frontier(space, weights, listener)
    except SpaceTooLargeError as error:
        if method.solver == "exact":
            raise SpaceTooLargeError(f"{error}; use {option('solver', 'nsga2')}, or fewer choices") from error
        listener.remark(f"{error}; NSGA-II starts cold, and how far it stays behind the optimum is not known")
        return None


def _within(frontier: Frontier, limits: Limits) -> Frontier:
    """Return the part of the frontier within limits on MACs; it has a point at least."""
    within = frontier.within(limits.min_macs, limits.macs)
    if not len(within.macs):
        raise BudgetError(
            f"no best network of {frontier.space.name} has {limits.words()} and effectiveness ρ ≤ "
            f"{frontier.fitness.max_effectiveness:g}; widen the range of MACs"
        )
    return within
