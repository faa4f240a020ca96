import numpy as np
import pytest
from helpers.networks.latency import random_times
from helpers.networks.spaces import SMALL
from helpers.networks.strategies import preset
from scipy.stats import spearmanr

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import LatencyTable
from fedpareto.fitness.score import score
from fedpareto.search.profiling.validation import fit_correction, judged, percentage_error, spread_networks
from fedpareto.supernet.genes import random_genes

TABLE = LatencyTable(random_times(SMALL))
_STEM = float(latency_cost(TABLE, SMALL).parts.stem.min())


def _sums(count: int = 30) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    genes = random_genes(SMALL, count, np.random.default_rng(2))
    return latency_cost(TABLE, SMALL).of(SMALL, genes)


def test_the_figures_of_a_validation_are_those_of_scipy() -> None:
    sums = _sums()
    times = sums * np.random.default_rng(0).uniform(0.7, 1.4, len(sums))
    found = judged(TABLE, SMALL, sums, times).validation
    assert found is not None
    assert found.networks == 30
    assert found.rank_correlation == spearmanr(sums, times).statistic
    assert found.uncorrected_percentage_error == pytest.approx(100 * np.mean(np.abs(sums - times) / times))
    assert found.predicted_ms == tuple(sums)
    assert found.measured_ms == tuple(times)


def test_a_correction_is_found_kept_and_applied_exactly() -> None:
    sums = _sums()
    table = judged(TABLE, SMALL, sums, 1.5 * sums + 0.25)
    assert table.correction is not None
    assert (table.correction.factor, table.correction.offset_ms) == pytest.approx((1.5, 0.25))
    assert table.validation is not None
    assert table.validation.mean_absolute_percentage_error == table.validation.corrected_percentage_error < 1e-9
    assert table.validation.uncorrected_percentage_error > 30
    genes = random_genes(SMALL, 50, np.random.default_rng(9))
    plain, corrected = (latency_cost(found, SMALL).of(SMALL, genes) for found in (TABLE, table))
    assert corrected == pytest.approx(1.5 * plain + 0.25)


def test_a_correction_that_does_not_help_networks_it_has_not_seen_is_left_out() -> None:
    sums = _sums(8)
    times = sums * (1 + 0.05 * np.array([1, -1, 1, -1, -1, 1, -1, 1]))
    table = judged(TABLE, SMALL, sums, times)
    assert table.validation is not None
    assert table.validation.corrected_percentage_error > table.validation.uncorrected_percentage_error
    assert table.validation.mean_absolute_percentage_error == table.validation.uncorrected_percentage_error
    assert table.correction is None


def test_the_corrected_error_is_of_networks_left_out_of_the_fit() -> None:
    sums = _sums(6)
    times = sums * np.random.default_rng(4).uniform(0.5, 2.0, 6)
    expected = []
    for number in range(6):
        kept = np.arange(6) != number
        found = fit_correction(sums[kept], times[kept], _STEM)
        expected.append(abs((found.factor * sums[number] + found.offset_ms) / times[number] - 1))
    validation = judged(TABLE, SMALL, sums, times).validation
    assert validation is not None
    assert validation.corrected_percentage_error == pytest.approx(100 * np.mean(expected))


@pytest.mark.parametrize("seed", range(8))
def test_no_correction_makes_a_stem_take_less_than_nothing_or_networks_change_places(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sums = generator.uniform(3.0, 5.0, 5)
    # Falling, steep, or without any relation.
    times = (9.0 - sums, 20 * (sums - 2.9), generator.uniform(1, 2, 5))[seed % 3]
    found = fit_correction(sums, times, 0.2)
    assert found.factor > 0
    assert found.factor * 0.2 + found.offset_ms >= 0
    assert bool(found.offset_ms) == (seed % 3 == 2 and found.offset_ms > 0)


def test_a_correction_is_the_best_in_relative_error() -> None:
    sums, generator = _sums(), np.random.default_rng(1)
    times = (1.2 * sums + 0.5) * generator.uniform(0.9, 1.1, len(sums))
    found = fit_correction(sums, times, _STEM)
    best = np.sum(((found.factor * sums + found.offset_ms) / times - 1) ** 2)
    for factor, offset in ((1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)):
        other = (found.factor + factor) * sums + found.offset_ms + offset
        assert np.sum((other / times - 1) ** 2) > best


def test_errors_are_relative_to_what_was_measured() -> None:
    assert percentage_error(np.array([1.0, 3.0]), np.array([2.0, 2.0])) == 50.0


def test_validated_networks_are_spread_over_macs() -> None:
    space = preset("mobilenet-cifar")
    genes = spread_networks(space, 20, np.random.default_rng(0))
    again = spread_networks(space, 20, np.random.default_rng(0))
    assert (genes == again).all()
    macs = score(space, genes).macs
    assert len(np.unique(macs)) == 20
    assert list(macs) != sorted(macs)
    plain = score(space, random_genes(space, 20, np.random.default_rng(0))).macs
    assert macs.max() / macs.min() > plain.max() / plain.min()
    gaps = np.diff(np.sort(macs)) / (macs.max() - macs.min())
    assert gaps.max() < 4 / 19
