"""Accuracy over MACs of every method of a study, with the spread over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.figures import drawn, save, words
from search.comparison.summary import Row
from supernet.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_rows(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw a line with error bars of one standard deviation for each method; a point where it has one network.

    Raises:
        UserError: the file cannot be written.
    """
    with drawn(8, 5) as figure:
        _draw(figure.add_subplot(), title, rows)
    save(figure, path)


def _draw(axes: "Axes", title: str, rows: Sequence[Row]) -> None:
    for row in rows:
        points = [
            (macs / 1e6, 100 * found.mean, 100 * found.deviation)
            for macs, found in zip(row.macs, row.accuracies, strict=True)
            if macs is not None and found is not None
        ]
        if points:
            macs, means, deviations = zip(*points, strict=True)
            axes.errorbar(macs, means, yerr=deviations, marker="o", capsize=3, label=words(row.label))
    *fewer, most = sorted({row.seeds for row in rows}) or [0]
    spread = f"mean ± standard deviation of {' or '.join([*map(str, fewer), counted(most, 'seed')])}"
    axes.set(xlabel="MACs (M)", ylabel="test accuracy (%)", title=words(f"{title}: {spread}"))
    axes.grid(alpha=0.3)
    if rows:
        axes.legend()
