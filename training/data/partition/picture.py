"""Picture of a federation: how many clients have how many images and classes."""

import io

import numpy as np

from fedpareto.cache.figures import drawn, write
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.partition.statistics import FederationStatistics

#: Bars of a histogram.
_BARS = 30


def federation_picture(statistics: FederationStatistics) -> bytes:
    """Histograms of the clients' numbers of images and of classes, a .png file."""
    written = io.BytesIO()
    with drawn(8, 3.5) as figure:
        for axes, values, what in zip(
            figure.subplots(1, 2), (statistics.images, statistics.seen), ("images", "classes"), strict=True
        ):
            axes.hist(values, bins=_edges(values), color="tab:blue", edgecolor="white", linewidth=0.5)
            axes.set_xlabel(f"{what} of a client")
            axes.set_ylabel("clients")
        figure.suptitle(counted(len(statistics.names), "client"))
        write(figure, written, "png")
    return written.getvalue()


def _edges(values: IntArray) -> FloatArray:
    """Edges of bars between whole numbers."""
    least, most = int(values.min()), int(values.max())
    step = max(1, -(-(most + 1 - least) // _BARS))
    edges: FloatArray = np.arange(least, most + step + 1, step, dtype=np.float64) - 0.5
    return edges
