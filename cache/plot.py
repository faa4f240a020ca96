"""Plots of Pareto fronts."""

import dataclasses
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.entries import CacheEntry
from fedpareto.cache.exact.frontier import Frontier
from fedpareto.cache.figures import drawn, notebook_html, save, words, write
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted, printable
from fedpareto.supernet.space import SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Formats a plot may have, by file suffix.
SUFFIXES = (".png", ".svg", ".pdf")

#: A larger ratio of MACs is drawn over a logarithmic axis.
_WIDE = 30


def check_plot_path(path: Path) -> None:
    """Refuse a plot file of a format that cannot be written.

    Raises:
        UserError: naming the suffix and the allowed ones.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"cannot plot to {path}; allowed suffixes: {', '.join(SUFFIXES)}")


@dataclasses.dataclass(frozen=True)
class Fronts:
    """The contents of a plot of fitness over MACs.

    Attributes:
        frontier: the exact frontier, if it is known.
        searched: MACs and fitness of the points a genetic search found on its own.
        entries: entries of a cache.
        chosen: the architecture that was asked for.
        budget: the most MACs that were allowed.
    """

    frontier: Frontier | None
    searched: tuple[IntArray, NDArray[np.float64]] | None = None
    entries: Sequence[CacheEntry] = ()
    chosen: CacheEntry | None = None
    budget: float | None = None


def front_title(space: SearchSpace) -> str:
    """Title of a plot of a space's fronts."""
    return f"Fitness over MACs in {space.name}"


def plot_fronts(path: Path, title: str, fronts: Fronts) -> None:
    """Draw fitness over MACs.

    Raises:
        UserError: the file cannot be written.
    """
    save(_drawn(title, fronts), path)


def fronts_svg(title: str, fronts: Fronts, label: str) -> str:
    """Return the same picture as an ``<svg>`` element for a page, the same every time.

    It is as wide as what it stands in, and says ``label`` to those who do not see it.
    """
    import matplotlib as mpl  # noqa: PLC0415 - a second of imports that only plots pay for

    label, written = printable(label), io.StringIO()
    figure = _drawn(title, fronts)
    # Without a salt the ids would be others every time, and so would the metadata, which are dated.
    with mpl.rc_context({"svg.hashsalt": "fronts"}):
        write(figure, written, "svg", metadata={"Title": label})
    _, start, rest = written.getvalue().partition("<svg ")
    tag, end, content = rest.partition(">")
    tag = re.sub(r'\b(width|height)="[^"]*" ?', "", tag)
    content = re.sub(r"<metadata>.*?</metadata>", "", content, count=1, flags=re.DOTALL)
    return f'{start}role="img" aria-label="{html.escape(label)}" {tag}{end}{content}'


def fronts_html(text: str, title: str, fronts: Fronts) -> str:
    """The same picture below a line of text, as a notebook shows a value."""
    return notebook_html(text, fronts_svg(title, fronts, title))


def _drawn(title: str, fronts: Fronts) -> "Figure":
    with drawn(8, 5) as figure:
        axes = figure.add_subplot()
        _draw(axes, fronts)
        axes.set_title(words(title))
    return figure


def _draw(axes: "Axes", fronts: Fronts) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415 - a second, too

    if fronts.frontier is not None:
        macs, fitness = fronts.frontier.macs / 1e6, fronts.frontier.values
        axes.step(
            macs, fitness, where="post", color="tab:blue", label=f"exact frontier ({counted(len(macs), 'network')})"
        )
    if fronts.searched is not None:
        found, reached = fronts.searched
        label = f"NSGA-II on its own ({len(found):,})"
        axes.scatter(found / 1e6, reached, s=9, color="tab:orange", zorder=2, label=label)
    if fronts.entries:
        x, y = zip(*((entry.macs / 1e6, entry.fitness) for entry in fronts.entries), strict=True)
        label = f"cache ({counted(len(x), 'entry')})"
        axes.scatter(x, y, s=30, facecolor="none", edgecolor="black", lw=0.8, zorder=3, label=label)
    if fronts.budget is not None:
        axes.axvline(fronts.budget / 1e6, color="0.5", ls="--", lw=1, label=f"budget {format_quantity(fronts.budget)}")
    if fronts.chosen is not None:
        chosen = fronts.chosen
        label = f"chosen: {format_quantity(chosen.macs)} MACs, fitness {chosen.fitness:.1f}"
        axes.scatter([chosen.macs / 1e6], [chosen.fitness], marker="*", s=220, color="tab:red", zorder=4, label=label)
    if fronts.frontier is not None and fronts.frontier.macs[-1] > _WIDE * fronts.frontier.macs[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("MACs of one image (M)")
    axes.set_ylabel("fitness F")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
