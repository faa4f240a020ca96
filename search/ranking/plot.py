"""Plot of a ranking: accuracy over fitness and over MACs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedpareto.cache.figures import drawn, legend_below, save, words
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_ranking(path: Path, sample: Sample, fitnesses: Mapping[str, FitnessSettings]) -> None:
    """Draw the accuracy of every network over each of some named fitnesses and over its MACs, coloured by band.

    Raises:
        UserError: the file cannot be written.
    """
    columns = {name: sample.figures(settings)["fitness"] for name, settings in fitnesses.items()}
    columns["MACs of one image (M)"] = sample.figures(next(iter(fitnesses.values())))["macs"] / 1e6
    with drawn(4.6 * len(columns), 4.6) as figure:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (name, values) in zip(panels, columns.items(), strict=True):
            _scatter(axes, sample, values)
            axes.set_xlabel(name)
        panels[0].set_ylabel("accuracy (%)")
        legend_below(figure, panels[0].get_legend_handles_labels()[0])
        figure.suptitle(words(f"{counted(len(sample), 'network')} of {sample.space.name}"))
    save(figure, path)


def _scatter(axes: "Axes", sample: Sample, values: FloatArray) -> None:
    for number, band in enumerate(sample.bands):
        here = sample.band == number
        # Lighter is more, in print as on a screen.
        shade = 0.9 * number / max(1, len(sample.bands) - 1)
        colour = _viridis(shade)
        axes.scatter(values[here], 100 * sample.accuracy[here], s=22, color=colour, label=band.words())
    axes.grid(alpha=0.3)


def _viridis(share: float) -> tuple[float, float, float, float]:
    import matplotlib as mpl  # noqa: PLC0415 - a second of imports that only plots pay for

    red, green, blue, alpha = np.asarray(mpl.colormaps["viridis"](share)).tolist()
    return red, green, blue, alpha
