"""The page about one search: its layers, its frontier, and the commands that lead to the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.search.query.answering import SearchOutcome
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.reports.page.layers import layer_lines
from fedpareto.search.reports.page.page import Page, write_page
from fedpareto.search.reports.plot import fronts_of
from fedpareto.supernet.common.terminal.words import command


def write_search_page(
    path: Path, subject: SearchTarget, answered: SearchOutcome, report: Mapping[str, Any], searched: str
) -> None:
    """Write the page about an answer, whose ``report`` may have been completed since.

    Raises:
        UserError: the file cannot be written.
    """
    latency = [cost for cost in answered.limits.extras if cost.name == "latency" and isinstance(cost, AdditiveCost)]
    lines = layer_lines(subject.space, answered.answer.entry.architecture, *latency)
    write_page(
        path, Page(report, lines, fronts_of(subject, answered), subject.space, _commands(subject, report, searched))
    )


def _commands(subject: SearchTarget, report: Mapping[str, Any], searched: str) -> list[str]:
    table = report.get("latency_table", {})
    commands = []
    if "runtime" in table:
        measured = {name: table[name] for name in ("runtime", "threads", "batch")}
        commands.append(command("profile-device", **subject.options, output=table["file"], **measured))
    if subject.run is not None:
        commands.append(command("train-supernet", config=subject.run / "config.yaml"))
    return [*commands, searched]
