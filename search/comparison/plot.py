"""Accuracy over MACs of every method of a study, with the spread over seeds."""

from collections.abc import Sequence
from pathlib import Path

from search.comparison.summary import Row
from supernet.files import replacing


def plot_rows(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw a line with error bars of one standard deviation for each method; a point where it has one network.

    Raises:
        UserError: the file cannot be written.
    """
    # A second of imports that only plots pay for.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for row in rows:
        points = [
            (macs / 1e6, 100 * found.mean, 100 * found.deviation)
            for macs, found in zip(row.macs, row.accuracies, strict=True)
            if macs is not None and found is not None
        ]
        if points:
            macs, means, deviations = zip(*points, strict=True)
            axes.errorbar(macs, means, yerr=deviations, marker="o", capsize=3, label=row.label)
    seeds = {row.seeds for row in rows}
    spread = f"mean ± standard deviation of {' or '.join(map(str, sorted(seeds)))} seeds"
    axes.set(xlabel="MACs (M)", ylabel="test accuracy (%)", title=f"{title}: {spread}")
    axes.grid(alpha=0.3)
    if rows:
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
