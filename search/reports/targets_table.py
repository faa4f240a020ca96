"""Table of a search for many devices, one row a device."""

from collections.abc import Iterable, Mapping
from typing import Any

from fedpareto.cache.costs.cost import COST_NAMES
from fedpareto.search.reports.terminal import COSTS, accuracy_text, figure
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.space import SearchSpace

#: Columns of the table: keys of a report, and what people call them.
_COLUMNS = {**COSTS, "fitness": "fitness", "validation_accuracy": "validation", "test_accuracy": "test"}


def print_targets(space: SearchSpace, reports: Mapping[str, Mapping[str, Any]], seconds: float) -> None:
    """Print one row a target, each figure beside its limit, and how long all of them took."""
    found = [report for report in reports.values() if "refused" not in report]
    columns = {key: title for key, title in _COLUMNS.items() if any(key in report for report in found)}
    rows = [(name, *_cells(report, columns)) for name, report in reports.items()]
    title = f"subnets of {space.name} for {counted(len(reports), 'target')}"
    print_table(title, ("target", *columns.values(), "certified"), rows)
    searched = sum(report["search_seconds"] for report in found)
    answered = f"{len(found)} of {counted(len(reports), 'target')} answered"
    for words in sorted({report["privacy"]["words"] for report in found if "privacy" in report}):
        say(words)
    say(f"{answered}; {searched:.2f} s of search, {seconds:.2f} s by the clock")


def refused_line(reports: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the sentence about targets without an answer; None if there are none."""
    reasons = [f"{name}: {report['refused']}" for name, report in reports.items() if "refused" in report]
    count = counted(len(reports), "target")
    return f"no answer for {len(reasons)} of {count}: {'; '.join(reasons)}" if reasons else None


def _cells(report: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    if "refused" in report:
        return [*("" for _ in columns), "no network"]
    cells = [
        accuracy_text(report, key.removesuffix("_accuracy")) if key.endswith("_accuracy") else _cell(report, key)
        for key in columns
    ]
    return [*cells, "yes" if report["certified"] else "no"]


def _cell(report: Mapping[str, Any], key: str) -> str:
    """Return a figure beside its limit, short enough for many columns; JSON has all digits."""
    sign, limit = ("≥", "min_fitness") if key == "fitness" else ("≤", key)
    texts = [
        format_quantity(value) if key in COST_NAMES else figure(key, value)
        for value in (report.get(key), report["limits"].get(limit))
        if value is not None
    ]
    return f" {sign} ".join(texts)
