"""Renderer of a search's page: one HTML file that needs no network, no fonts and no scripts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from fedpareto.cache.plot import Fronts, front_title, fronts_svg
from fedpareto.search.reports.page import sections
from fedpareto.search.reports.page.figures import milliseconds
from fedpareto.search.reports.page.layers import LayerLine
from fedpareto.search.reports.terminal import standing
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.terminal.words import printable
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Page:
    """Contents of a page.

    Attributes:
        report: the report of ``search_report``, with anything measured since; the page embeds all of it as JSON.
        lines: the layers of the architecture.
        fronts: contents of the plot.
        space: the space of the search.
        commands: commands that lead to the same result, in order.
    """

    report: Mapping[str, Any]
    lines: Sequence[LayerLine]
    fronts: Fronts
    space: SearchSpace
    commands: Sequence[str]


@dataclasses.dataclass(frozen=True)
class PagePart:
    """The lines of one part of a network.

    Attributes:
        lines: its layers.
        latency: milliseconds of the part, None without a latency table.
    """

    lines: Sequence[LayerLine]
    latency: float | None

    @property
    def macs(self) -> int:
        """Multiply–accumulates of one image."""
        return sum(line.macs for line in self.lines)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(line.params for line in self.lines)


def write_page(path: Path, page: Page) -> None:
    """Write a page as HTML, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, render_page(page))


def render_page(page: Page) -> str:
    """Return the HTML of a page."""
    # Only a search that writes a page pays for these imports.
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    template = (
        resources.files("fedpareto.search.reports.page").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_text
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    report = _plain(page.report)
    headline = sections.headline(report)
    parts = _parts(page.lines)
    return environment.from_string(template).render(
        report=report,
        headline=headline,
        standing=standing(report),
        highlights=sections.highlights(report),
        limited=sections.limited(report),
        lists=sections.lists(report),
        architecture=sections.architecture_text(report["architecture"]),
        plot=fronts_svg(front_title(page.space), page.fronts, f"Fitness over MACs. {headline}."),
        parts=parts,
        largest=_largest(page.lines),
        latency=_latency(parts),
        milliseconds=milliseconds,
        commands=page.commands,
    )


def _text(value: Any) -> Any:
    """Return text from data with its control characters made visible; our own markup is left as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, None for a number that JSON has not: an infinite limit is no limit."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parts(lines: Sequence[LayerLine]) -> list[PagePart]:
    groups = [list(group) for _, group in groupby(lines, key=lambda line: line.part)]
    return [PagePart(group, group[0].latency) for group in groups]


def _latency(parts: Sequence[PagePart]) -> float | None:
    """Return the latency of all parts, None without a latency table."""
    times = [part.latency for part in parts if part.latency is not None]
    return math.fsum(times) if times else None


def _largest(lines: Sequence[LayerLine]) -> dict[str, float]:
    """Return the largest value of each column that has bars; 1 where all are 0."""
    columns = ("macs", "params", "latency")
    return {name: max((getattr(line, name) or 0 for line in lines), default=0) or 1 for name in columns}
