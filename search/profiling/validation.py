"""Validation of a latency table: its sums compared with whole networks that are measured, and a linear correction."""

import dataclasses

import numpy as np
from scipy.stats import spearmanr

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import Correction, LatencyTable, Validation
from fedpareto.fitness.score import score
from fedpareto.search.profiling.profile import Bench
from fedpareto.search.runtimes.stopwatch import measure_against
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.space import SearchSpace

#: Networks drawn for each that is measured, and networks measured in turns.
_DRAWN, _GROUP = 50, 8


def validate(bench: Bench, table: LatencyTable, count: int, listener: ProgressListener) -> LatencyTable:
    """Validate the table on ``count`` networks; return it with the result, and with a correction if that helps.

    The networks are measured relative to the reference network, as the blocks were, and converted to milliseconds by
    the reference's time from then. So the sum is judged, and not the present speed of the machine.
    """
    genes = spread_networks(bench.space, count, np.random.default_rng(bench.seed))
    plain = dataclasses.replace(table, correction=None, validation=None)
    sums = latency_cost(plain, bench.space).of(bench.space, genes)
    times = _measured(bench, genes, listener) * float(np.median(table.references))
    return judged(plain, bench.space, sums, times)


def judged(table: LatencyTable, space: SearchSpace, sums: FloatArray, times: FloatArray) -> LatencyTable:
    """Return the uncorrected table with its validation and, where it lowers the error, a correction.

    Args:
        table: the table.
        space: its search space.
        sums: the table's predictions for N networks, (N,), in milliseconds.
        times: their measured times, (N,), in milliseconds.
    """
    fastest = float(latency_cost(table, space).parts.stem.min())
    held_out = np.empty_like(sums)
    for number in range(len(sums)):
        others = np.arange(len(sums)) != number
        correction = fit_correction(sums[others], times[others], fastest)
        held_out[number] = correction.factor * sums[number] + correction.offset_ms
    plain, corrected = percentage_error(sums, times), percentage_error(held_out, times)
    validation = Validation(
        networks=len(sums),
        mean_absolute_percentage_error=min(plain, corrected),
        rank_correlation=None if np.ptp(sums) == 0 or np.ptp(times) == 0 else float(spearmanr(sums, times).statistic),
        uncorrected_percentage_error=plain,
        corrected_percentage_error=corrected,
        predicted_ms=tuple(sums.tolist()),
        measured_ms=tuple(times.tolist()),
    )
    correction_kept = fit_correction(sums, times, fastest) if corrected < plain else None
    return dataclasses.replace(table, correction=correction_kept, validation=validation)


def percentage_error(predicted: FloatArray, measured: FloatArray) -> float:
    """Return the mean absolute percentage error, relative to the measured times."""
    return float(100 * np.mean(np.abs(predicted / measured - 1)))


def fit_correction(sums: FloatArray, times: FloatArray, fastest_stem: float) -> Correction:
    """Fit the factor and the offset of least squared relative error.

    If these would reverse the order of networks, or give a stem a negative time, the best factor alone is returned.
    """
    best = np.linalg.lstsq(np.stack([sums / times, 1 / times], axis=1), np.ones(len(sums)), rcond=None)[0]
    factor, offset = map(float, best)
    if factor > 0 and factor * fastest_stem + offset >= 0:
        return Correction(factor, offset)
    ratios = sums / times
    return Correction(float(ratios.sum() / (ratios**2).sum()), 0.0)


def spread_networks(space: SearchSpace, count: int, generator: np.random.Generator) -> IntArray:
    """Return (count, genes): random networks spread evenly over the MACs of many more, in random order."""
    drawn = random_genes(space, count * _DRAWN, generator)
    macs = score(space, drawn).macs
    free, chosen = list(np.argsort(macs)), []
    for wanted in np.linspace(macs.min(), macs.max(), count):
        chosen.append(free.pop(int(np.argmin(np.abs(macs[free] - wanted)))))
    networks: IntArray = drawn[generator.permutation(chosen)]
    return networks


def _measured(bench: Bench, genes: IntArray, listener: ProgressListener) -> FloatArray:
    """Return the time of each of N networks, in units of the reference network's."""
    generator = np.random.default_rng(bench.seed)
    listener.report("measuring networks", 0, len(genes))
    (reference,) = bench.runtime.calls([bench.reference()])
    times: list[float] = []
    for start in range(0, len(genes), _GROUP):
        networks = [bench.network(decode(bench.space, vector)) for vector in genes[start : start + _GROUP]]
        _, timings = measure_against(reference, bench.runtime.calls(networks), bench.effort, generator, bench.clock)
        times += [timing.ms for timing in timings]
        listener.report("measuring networks", len(times), len(genes))
    return np.array(times)
