"""Plots of Pareto fronts."""

from collections.abc import Sequence
from pathlib import Path

from cache.entries import Entry
from supernet.errors import UserError
from supernet.files import replacing
from supernet.space import SearchSpace

#: Formats a plot may have, by file suffix.
SUFFIXES = (".png", ".svg", ".pdf")


def check_plot_path(path: Path) -> None:
    """Refuse a plot file of a format that cannot be written.

    Raises:
        UserError: naming the suffix and the allowed ones.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"cannot plot to {path}; allowed suffixes: {', '.join(SUFFIXES)}")


def plot_front(path: Path, space: SearchSpace, entries: Sequence[Entry]) -> None:
    """Draw fitness over MACs of the entries, coloured by parameters.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second of import only plots pay for

    figure = Figure(figsize=(7.5, 4.5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    macs = [entry.macs / 1e6 for entry in entries]
    fitness = [entry.fitness for entry in entries]
    axes.plot(macs, fitness, color="0.8", zorder=1)
    points = axes.scatter(macs, fitness, c=[entry.params / 1e6 for entry in entries], cmap="viridis", s=28, zorder=2)
    figure.colorbar(points, ax=axes, label="parameters (M)")
    axes.set_xlabel("MACs of one image (M)")
    axes.set_ylabel("fitness F")
    axes.set_title(f"Pareto cache of {space.name}: {len(entries)} entries")
    axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
