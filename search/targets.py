"""Many devices in one call: a YAML file of named budgets, and one answer for each."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.additive import COST_NAMES
from fedpareto.search.budgets import Budgets, check_budgets
from fedpareto.search.report import COSTS, figure
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, named, read_yaml_mapping
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.space import SearchSpace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: Columns of the table: keys of a report, and what people call them.
_COLUMNS = {**COSTS, "fitness": "fitness", "validation_accuracy": "validation", "test_accuracy": "test"}


def read_targets(path: Path) -> dict[str, Budgets]:
    """Read named budgets: a mapping of names to mappings of budget options, such as ``flops_budget: 60M``.

    Raises:
        UserError: the file is no such mapping, a name is no plain file name, or a budget cannot be read.
    """
    targets = {}
    for name, fields in read_yaml_mapping(path).items():
        source = f"{path}: {name}"
        if not _NAME.fullmatch(name):
            raise UserError(f"{source} is no name of a target; use letters, digits, '.', '_' and '-'")
        if not isinstance(fields, Mapping):
            raise UserError(f"{source} must hold a mapping of budgets, such as flops_budget: 60M")
        spelled = {field.replace("-", "_"): value for field, value in fields.items()}
        targets[name] = from_mapping(Budgets, spelled, source)
        with named(source):
            check_budgets(targets[name])
    if not targets:
        raise UserError(f"{path} holds no target; write one like phone: {{flops_budget: 60M}}")
    return targets


def print_targets(space: SearchSpace, reports: Mapping[str, Mapping[str, Any]], seconds: float) -> None:
    """Print one row a target, each figure beside its limit, and how long all of them took."""
    found = [report for report in reports.values() if "refused" not in report]
    columns = {key: title for key, title in _COLUMNS.items() if any(key in report for report in found)}
    rows = [(name, *_cells(report, columns)) for name, report in reports.items()]
    title = f"subnets of {space.name} for {counted(len(reports), 'target')}"
    print_table(title, ("target", *columns.values(), "certified"), rows)
    searched = sum(report["search_seconds"] for report in found)
    answered = f"{len(found)} of {counted(len(reports), 'target')} answered"
    say(f"{answered}; {searched:.2f} s of search, {seconds:.2f} s by the clock")


def refused_line(reports: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the sentence about targets without an answer; None if there are none."""
    reasons = [f"{name}: {report['refused']}" for name, report in reports.items() if "refused" in report]
    count = counted(len(reports), "target")
    return f"no answer for {len(reasons)} of {count}: {'; '.join(reasons)}" if reasons else None


def _cells(report: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    if "refused" in report:
        return [*("" for _ in columns), "no network"]
    return [*(_cell(report, key) for key in columns), "yes" if report["certified"] else "no"]


def _cell(report: Mapping[str, Any], key: str) -> str:
    """Return a figure beside its limit, short enough for many columns; JSON has all digits."""
    sign, limit = ("≥", "min_fitness") if key == "fitness" else ("≤", key)
    texts = [
        format_quantity(value) if key in COST_NAMES else figure(key, value)
        for value in (report.get(key), report["limits"].get(limit))
        if value is not None
    ]
    return f" {sign} ".join(texts)
