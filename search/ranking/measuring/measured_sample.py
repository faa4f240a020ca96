"""Sample of networks with measured accuracies, in bands of nearly equal MACs, with figures to rank them by."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedpareto.fitness.score import score
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.search.ranking.measuring.bands import Band
from fedpareto.search.ranking.statistics import LEAST
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode_all
from fedpareto.supernet.space import SearchSpace

#: Figures that networks are ranked by, in the order of reports.
FIGURES = ("fitness", "macs", "params", "blocks")


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """N networks of a space.

    Attributes:
        space: the search space.
        genes: the networks, (N, genes).
        accuracy: their accuracies, (N,).
        halves: their accuracies on each half of the images, (2, N); None where they are not known.
        band: index of each network's band, (N,).
        bands: the bands.
    """

    space: SearchSpace
    genes: IntArray
    accuracy: FloatArray
    band: IntArray
    bands: tuple[Band, ...]
    halves: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.genes)

    def take(self, index: IntArray) -> "Sample":
        """Return some of the networks, the bands staying what they are."""
        halves = None if self.halves is None else self.halves[:, index]
        genes, accuracy, band = self.genes[index], self.accuracy[index], self.band[index]
        return dataclasses.replace(self, genes=genes, accuracy=accuracy, band=band, halves=halves)

    def figures(self, settings: FitnessSettings) -> dict[str, FloatArray]:
        """Return each of ``FIGURES`` of all networks, (N,)."""
        scores = score(self.space, self.genes, settings)
        return {name: getattr(scores, name).astype(float) for name in FIGURES}


def sample_of(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    readings: Sequence[Reading],
    bands: Sequence[Band] | None = None,
    width: float = 0.0,
) -> Sample:
    """Return a sample, in given ``bands`` or, without any, in bands of at most ``width`` relative to their middle.

    Raises:
        ArchitectureError: an architecture is not in the space.
        UserError: no band holds enough networks to be ranked.
    """
    genes = encode_all(space, architectures)
    macs = score(space, genes).macs
    found = bands_of(macs, width) if bands is None else bands
    band = np.full(len(macs), -1)
    for number, each in enumerate(found):
        band[each.holds(macs)] = number
    if np.bincount(band).max(initial=0) < LEAST:
        raise UserError(
            f"no band of MACs holds {LEAST} of {counted(len(macs), 'network')}; measure more, or give a larger "
            f"{option('band-width')}"
        )
    accuracy = np.array([reading.accuracy for reading in readings], dtype=float)
    halves = [reading.halves for reading in readings if reading.halves is not None]
    known = len(halves) == len(readings)
    return Sample(space, genes, accuracy, band, tuple(found), np.array(halves).T if known else None)


def bands_of(macs: IntArray, width: float) -> list[Band]:
    """Return bands that hold all of (N,) MACs, each from the least one that is left, as wide as the networks in it."""
    ratio = (2 + width) / (2 - width)
    ordered, bands = np.sort(macs), []
    while len(ordered):
        inside = ordered[ordered <= ordered[0] * ratio]
        bands.append(Band(float(inside[0]), float(inside[-1])))
        ordered = ordered[len(inside) :]
    return bands
