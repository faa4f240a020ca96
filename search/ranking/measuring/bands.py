"""Draw of subnets to measure: from narrow bands of MACs, and spread over the fitness within each band."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from fedpareto.cache.nsga2.sampling import ladder
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical, decode, gene_layout
from fedpareto.supernet.space import SearchSpace

#: Random networks a batch, batches at most, and networks of a band at which no more are drawn.
_BATCH, _MOST_BATCHES, _ENOUGH = 4096, 100, 2000


class Band(NamedTuple):
    """A window of MACs, both ends included."""

    least: float
    most: float

    def holds(self, macs: IntArray) -> IntArray:
        """Return the indices of those of (N,) MACs that lie in the band."""
        return np.flatnonzero((macs >= self.least) & (macs <= self.most))

    def words(self) -> str:
        """Return the band in words, e.g. ``24M–27M MACs``."""
        return "–".join(self.ends()) + " MACs"

    def ends(self) -> tuple[str, str]:
        """Return both ends in three digits."""
        least, most = (format_quantity(float(f"{macs:.3g}")) for macs in self)
        return least, most


@dataclasses.dataclass(frozen=True)
class Subnet:
    """A network to measure, and the number of the band it was drawn for."""

    band: int
    architecture: Architecture


def macs_bands(least: float, most: float, count: int, width: float) -> list[Band]:
    """Return ``count`` bands of MACs, in the middles of as many parts of a range, equal in ratio.

    A band is ``width`` wide relative to its middle, but no wider than its part.
    """
    bands = []
    for low, high in itertools.pairwise(np.geomspace(least, most, count + 1)):
        middle = float(np.sqrt(low * high))
        bands.append(Band(max(float(low), middle * (1 - width / 2)), min(float(high), middle * (1 + width / 2))))
    return bands


def draw_subnets(
    space: SearchSpace, settings: FitnessSettings, bands: list[Band], count: int, seed: int
) -> list[Subnet]:
    """Draw ``count`` subnets with ``ρ ≤ ρ0``, equally many from each band, in random order.

    From a pool of random networks of a band, those nearest to even steps between its lowest and highest fitness are
    taken. A plain random draw would have nearly all of them in the middle.

    Raises:
        UserError: a band has too few networks.
    """
    generator = np.random.default_rng(seed)
    pools = pools_of(space, settings, bands, generator)
    subnets = []
    for number, (band, pool) in enumerate(zip(bands, pools, strict=True)):
        wanted = count // len(bands) + (number < count % len(bands))
        if len(pool) < wanted:
            raise UserError(
                f"{counted(len(pool), 'random network')} of {space.name} were found with {band.words()} and ρ ≤ "
                f"{settings.max_effectiveness:g}, not {wanted}; ask for fewer {option('subnets')}, a larger "
                f"{option('band-width')}, or other {option('flops-min')} and {option('flops-max')}"
            )
        chosen = pool[evenly(score(space, pool, settings).fitness, wanted)]
        subnets += [Subnet(number, decode(space, genes)) for genes in chosen]
    return [subnets[index] for index in generator.permutation(len(subnets))]


def evenly(values: FloatArray, count: int) -> IntArray:
    """Return the indices of ``count`` of (N,) values, each once: the nearest to even steps from least to most."""
    free = np.ones(len(values), dtype=np.bool_)
    chosen = []
    for wanted in np.linspace(values.min(), values.max(), count):
        index = int(np.where(free, np.abs(values - wanted), np.inf).argmin())
        free[index] = False
        chosen.append(index)
    return np.array(chosen, dtype=np.int64)


def pools_of(
    space: SearchSpace,
    settings: FitnessSettings,
    bands: list[Band],
    generator: np.random.Generator,
) -> list[IntArray]:
    """Return (N, genes) distinct random networks of each band, ``_ENOUGH`` if there are so many."""
    pools: list[dict[bytes, IntArray]] = [{} for _ in bands]
    for _ in range(_MOST_BATCHES):
        lacking = [number for number, pool in enumerate(pools) if len(pool) < _ENOUGH]
        if not lacking:
            break
        genes = ladder(space, _BATCH, generator)
        scores = score(space, genes, settings)
        for number in lacking:
            inside = bands[number].holds(scores.macs)
            found = canonical(space, genes[inside[scores.feasible[inside]]])
            pools[number].update((vector.tobytes(), vector) for vector in found[: _ENOUGH - len(pools[number])])
    shape = (-1, len(gene_layout(space).sizes))
    return [np.array(list(pool.values()), dtype=np.int64).reshape(shape) for pool in pools]
