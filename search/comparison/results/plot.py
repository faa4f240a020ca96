"""Plot of accuracy over MACs for every method of a study, with the spread over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpareto.cache.figures import drawn, legend_below, save, words
from fedpareto.search.comparison.results.summary import ResultRow
from fedpareto.search.comparison.studies.yardsticks import row_label
from fedpareto.supernet.common.terminal.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Lines of yardsticks: greys and dashes that tell them from each other and from methods.
_GREYS = (("0.25", "--"), ("0.5", "-."), ("0.65", ":"), ("0.4", (0, (5, 1, 1, 1, 1, 1))))


def plot_rows(path: Path, title: str, rows: Sequence[ResultRow], yardsticks: Sequence[str] = ()) -> None:
    """Draw a line with error bars of one standard deviation for each method; a point where it has one network.

    Rows of ``yardsticks`` are grey and dashed; one that is the same at every budget is a line across.

    Raises:
        UserError: the file cannot be written.
    """
    with drawn(8, 5) as figure:
        # In the order of the table.
        legend_below(figure, _draw(figure.add_subplot(), title, rows, yardsticks))
    save(figure, path)


def _draw(axes: "Axes", title: str, rows: Sequence[ResultRow], yardsticks: Sequence[str]) -> list[Any]:
    """Draw all rows; return what the legend shows of them."""
    drawn_rows = []
    for row in rows:
        points = [
            (macs / 1e6, 100 * found.mean, 100 * found.deviation)
            for macs, found in zip(row.macs, row.accuracies, strict=True)
            if macs is not None and found is not None
        ]
        if points:
            drawn_rows.append(_draw_row(axes, row.label, points, _style(row.label, yardsticks)))
    *fewer, most = sorted({row.seeds for row in rows}) or [0]
    spread = f"mean ± standard deviation of {' or '.join([*map(str, fewer), counted(most, 'seed')])}"
    axes.set(xlabel="MACs (M)", ylabel="test accuracy (%)", title=words(f"{title}: {spread}"))
    axes.grid(alpha=0.3)
    return drawn_rows


def _style(label: str, yardsticks: Sequence[str]) -> dict[str, Any]:
    """Return a row's style: the next colour for a method, a grey of its own for a yardstick, drawn behind."""
    if label not in yardsticks:
        return {"marker": "o"}
    grey, dashes = _GREYS[yardsticks.index(label) % len(_GREYS)]
    return {"marker": ".", "color": grey, "linestyle": dashes, "zorder": 1}


def _draw_row(axes: "Axes", label: str, points: Sequence[tuple[float, float, float]], style: Mapping[str, Any]) -> Any:
    """Draw one row; return what the legend shows of it."""
    macs, means, deviations = zip(*points, strict=True)
    if label != row_label("linear") or "color" not in style:
        return axes.errorbar(macs, means, yerr=deviations, capsize=3, label=words(label), **style)
    # The same model at every budget: its own MACs are far to the left of all networks.
    axes.axhspan(means[0] - deviations[0], means[0] + deviations[0], color=style["color"], alpha=0.15, lw=0)
    return axes.axhline(means[0], label=words(f"{label} (at any budget)"), **{**style, "marker": ""})
