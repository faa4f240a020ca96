"""What a search reports: one JSON object, or a table and a sentence for people."""

import json
from typing import Any

from rich.table import Table

from cache.additive import COST_NAMES
from cache.entries import Entry
from cache.file import entry_to_json
from cache.limits import Limits
from search.searcher import Answer
from supernet.console import print_table
from supernet.genes import encode
from supernet.space import SearchSpace


def search_report(
    space: SearchSpace, run: str | None, limits: Limits, min_fitness: float | None, answer: Answer, seconds: float
) -> dict[str, Any]:
    """Return what ``--json`` prints: the limits, the architecture with its costs, and how good it is."""
    entry, better = answer.entry, answer.next_better
    values: dict[str, float] = {bound.cost: bound.value for bound in limits.bounds()}
    genes = encode(space, entry.architecture)[None]
    extras = {extra.name: float(extra.of(space, genes)[0]) for extra in limits.extras}
    values |= {extra.name: extra.limit for extra in limits.extras}
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


def _better(better: Entry, than: Entry) -> dict[str, Any]:
    gap = better.fitness - than.fitness
    return {"macs": better.macs, "params": better.params, "fitness": better.fitness, "gap": gap}


def print_report(report: dict[str, Any]) -> None:
    """Print a report for people."""
    what = "smallest subnet so fit" if "min_fitness" in report["limits"] else "fittest subnet"
    table = Table(title=f"the {what} of {report['space']} within the limits")
    for column in ("", "value", "limit", "slack"):
        table.add_column(column, justify="left" if not column else "right")
    for cost, name in {**COST_NAMES, "latency": "latency (ms)"}.items():
        if cost in report:
            limit, slack = report["limits"].get(cost), report["slack"].get(cost)
            table.add_row(name, *map(_amount, (report[cost], limit, slack)))
    table.add_row("fitness", f"{report['fitness']:.3f}", f"{report['limits'].get('min_fitness', '')}", "")
    for split in ("validation", "test"):
        if f"{split}_accuracy" in report:
            table.add_row(f"{split} accuracy", f"{report[f'{split}_accuracy']:.2%}", "", "")
    print_table(table)
    print(standing(report))
    print(json.dumps(report["architecture"]))


def _amount(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def standing(report: dict[str, Any]) -> str:
    """Return how good the answer is, in one sentence."""
    if not report["certified"]:
        return "found by a genetic search: good, but not certified"
    what = "no network within the limits has a higher fitness"
    if "min_fitness" in report["limits"]:
        what = "no network within the limits reaches that fitness with fewer MACs"
    better = report["next_better"]
    if better is None:
        return f"certified: {what}; no network of the space is fitter"
    return (
        f"certified: {what}; the next better one takes {better['macs']:,} MACs and {better['params']:,} parameters "
        f"for {better['gap']:.3f} more"
    )
