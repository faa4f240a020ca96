"""Rank correlations with accuracy, overall and within bands of MACs, with bootstrap intervals.

Kendall's τ-b and Spearman's ρ, computed for all resamples at once: a resample is how often each network is in it,
and both are sums over pairs of the signs of differences, weighed by those counts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedpareto.supernet.arrays import FloatArray, IntArray

#: Share of resamples within an interval.
CONFIDENCE = 0.95

#: Fewest networks that a band's correlation is taken over.
LEAST = 4

#: Correlation of two columns (N,) in R resamples of N networks given by their counts (R, N); shape (R,).
Statistic = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


class Interval(NamedTuple):
    """A correlation and the ends of its interval; NaN where all networks are equal."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Correlations:
    """One figure's correlations with accuracy.

    Attributes:
        within: the mean of the bands' correlations.
        overall: over all networks.
        bands: correlation in each band; NaN for bands of too few networks.
    """

    within: Interval
    overall: Interval
    bands: tuple[Interval, ...]


def kendall(counts: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return Kendall's τ-b of R resamples, (R,); NaN where a column does not vary."""
    signs_x, signs_y = _signs(x), _signs(y)

    def pairs(matrix: FloatArray) -> FloatArray:
        total: FloatArray = ((counts @ matrix) * counts).sum(axis=1)
        return total

    return _ratio(pairs(signs_x * signs_y), pairs(np.abs(signs_x)) * pairs(np.abs(signs_y)))


def spearman(counts: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return Spearman's ρ of R resamples, (R,), with mean ranks of equal values; NaN where a column does not vary."""
    # A sum of signs is twice a rank less the mean rank.
    ranks_x, ranks_y = counts @ _signs(x).T, counts @ _signs(y).T
    variances = (counts * ranks_x**2).sum(axis=1) * (counts * ranks_y**2).sum(axis=1)
    return _ratio((counts * ranks_x * ranks_y).sum(axis=1), variances)


def ceiling(counts: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the τ that exact accuracies would have with those measured on a set of images, of R resamples, (R,).

    Args:
        counts: counts of the resamples, (R, N).
        one: accuracies measured on one half of the images, (N,).
        other: those on the other half.

    Pearson's correlation r of the halves gives that of exact accuracies with the whole, ``√(2r/(1 + r))`` (Spearman and
    Brown, 1910), and that is ``sin(τ·π/2)`` where both are normal (Kendall, 1938). No fitness is expected to exceed it.
    """
    r = np.maximum(_pearson(counts, one, other), 0)
    tau: FloatArray = 2 / np.pi * np.arcsin(np.sqrt(2 * r / (1 + r)))
    return tau


#: Statistics that are reported, by name.
STATISTICS: Mapping[str, Statistic] = {"kendall": kendall, "spearman": spearman}


def resampled(bands: IntArray, resamples: int, generator: np.random.Generator) -> FloatArray:
    """Return (1 + resamples, N) counts: each network once, then draws with replacement within each of the ``bands``."""
    counts = np.zeros((1 + resamples, len(bands)))
    counts[0] = 1
    for band in np.unique(bands):
        here = np.flatnonzero(bands == band)
        drawn = here[generator.integers(0, len(here), size=(resamples, len(here)))]
        np.add.at(counts, (np.arange(1, 1 + resamples)[:, None], drawn), 1)
    return counts


def correlations(
    statistic: Statistic, values: FloatArray, accuracy: FloatArray, bands: IntArray, counts: FloatArray
) -> Correlations:
    """Return the correlations of ``values`` and ``accuracy``, both (N,), with the intervals of ``resampled`` counts."""
    of_bands = _of_bands(statistic, values, accuracy, bands, counts)
    return Correlations(
        interval(_mean(of_bands)),
        interval(statistic(counts, values, accuracy)),
        tuple(interval(column) for column in of_bands),
    )


def correlation_gain(
    statistic: Statistic,
    values: FloatArray,
    others: FloatArray,
    accuracy: FloatArray,
    bands: IntArray,
    counts: FloatArray,
) -> Interval:
    """Return the correlation of ``values`` with accuracy less that of ``others``, as the mean over bands.

    Both are resampled together, so that noise they share does not widen the interval.
    """
    mine, theirs = (_mean(_of_bands(statistic, each, accuracy, bands, counts)) for each in (values, others))
    return interval(mine - theirs)


def interval(resamples: FloatArray) -> Interval:
    """Return the first value with the percentile interval of the others; NaN if it is."""
    rest = resamples[1:][np.isfinite(resamples[1:])]
    if not len(rest) or not np.isfinite(resamples[0]):
        return Interval(float(resamples[0]), np.nan, np.nan)
    low, high = np.quantile(rest, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(resamples[0]), float(low), float(high))


def _of_bands(
    statistic: Statistic, values: FloatArray, accuracy: FloatArray, bands: IntArray, counts: FloatArray
) -> FloatArray:
    """Return the correlation of each band, (bands, R); NaN for bands of too few networks."""
    rows = []
    for band in range(bands.max() + 1):
        here = np.flatnonzero(bands == band)
        enough = len(here) >= LEAST
        rows.append(
            statistic(counts[:, here], values[here], accuracy[here]) if enough else np.full(len(counts), np.nan)
        )
    return np.stack(rows)


def _mean(of_bands: FloatArray) -> FloatArray:
    """Return the mean over the bands that have a correlation, (R,)."""
    known = np.isfinite(of_bands)
    total = np.where(known, of_bands, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _signs(values: FloatArray) -> FloatArray:
    """Return (N, N) signs of value i less value j."""
    signs: FloatArray = np.sign(values[:, None] - values[None, :])
    return signs


def _pearson(counts: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return Pearson's correlation of R resamples, (R,); NaN where a column does not vary."""
    total = counts.sum(axis=1, keepdims=True)
    of_x, of_y = (values - counts @ values[:, None] / total for values in (x, y))
    variances = (counts * of_x**2).sum(axis=1) * (counts * of_y**2).sum(axis=1)
    # What is left of equal values is rounding.
    variances = np.where(variances > 1e-24 * total[:, 0] ** 2, variances, 0)
    return _ratio((counts * of_x * of_y).sum(axis=1), variances)


def _ratio(covariances: FloatArray, squares: FloatArray) -> FloatArray:
    varies = squares > 0
    ratio: FloatArray = np.where(varies, covariances / np.sqrt(np.where(varies, squares, 1)), np.nan)
    return ratio
