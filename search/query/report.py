"""Report of a search as JSON values: the architecture found, its costs, and whether it is certified."""

from typing import Any

from fedpareto.cache.cache_file import entry_to_json
from fedpareto.cache.costs.cost import LimitedCost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry
from fedpareto.search.query.searcher import Answer
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace


def search_report(
    space: SearchSpace, run: str | None, limits: Limits, min_fitness: float | None, answer: Answer, seconds: float
) -> dict[str, Any]:
    """Return the report of a search: limits, architecture, costs and certificate, as ``--json`` prints it."""
    entry, better = answer.entry, answer.next_better
    values: dict[str, float] = {bound.cost: bound.value for bound in limits.bounds()}
    genes = encode(space, entry.architecture)[None]
    extras = {extra.name: _value(extra, float(extra.of(space, genes)[0])) for extra in limits.extras}
    values |= {extra.name: _value(extra, extra.limit) for extra in limits.extras}
    costs = {"macs": entry.macs, "params": entry.params, **extras}
    return {
        "space": space.name,
        "run": run,
        "limits": values | ({} if min_fitness is None else {"min_fitness": min_fitness}),
        **entry_to_json(entry),
        **extras,
        "slack": {name: value - costs[name] for name, value in values.items()},
        "solver": answer.solver,
        "certified": answer.certified,
        "next_better": None if better is None else _better(better, entry),
        "search_seconds": round(seconds, 4),
    }


def _value(cost: LimitedCost, value: float) -> float:
    """Return a cost as a JSON number: bytes are whole."""
    return int(value) if cost.unit == "B" else value


def _better(better: CacheEntry, than: CacheEntry) -> dict[str, Any]:
    gap = better.fitness - than.fitness
    return {"macs": better.macs, "params": better.params, "fitness": better.fitness, "gap": gap}
