"""Building a cache: one call from a space and limits to verified entries."""

import dataclasses

from cache.file import Cache
from cache.limits import Limits
from cache.nsga2 import Nsga2Settings, Report, solve_nsga2, unreported
from supernet.errors import BudgetError
from supernet.space import FitnessSettings, SearchSpace


def build_cache(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    entries: int,
    settings: Nsga2Settings,
    report: Report = unreported,
) -> Cache:
    """Return a cache of at most ``entries`` entries spread over the MACs within ``limits``.

    Raises:
        BudgetError: fewer than 2 entries asked for, or no network meets the limits.
    """
    if entries < 2:
        raise BudgetError(f"a cache of {entries} entries is too small; ask for at least 2")
    found = solve_nsga2(space, fitness, limits, entries, settings, report)
    solver_settings = {
        **dataclasses.asdict(settings),
        "limits": dataclasses.asdict(limits),
        "entries": entries,
    }
    return Cache(tuple(found), fitness, "nsga2", solver_settings)
