import math

import numpy as np
import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedpareto.search.ranking.statistics import (
    ceiling,
    correlation_gain,
    correlations,
    interval,
    kendall,
    resampled,
    spearman,
)

_PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30)


@given(_PAIRS, st.integers(0, 99))
@runs(150)
def test_correlations_of_resamples_are_those_of_scipy(pairs: list[tuple[int, int]], seed: int) -> None:
    x, y = np.array(pairs, dtype=float).T
    bands = np.zeros(len(x), dtype=np.int64)
    counts = resampled(bands, 3, np.random.default_rng(seed))
    for found, expected in ((kendall, stats.kendalltau), (spearman, stats.spearmanr)):
        for row, value in zip(counts, found(counts, x, y), strict=True):
            repeated = np.repeat(np.arange(len(x)), row.astype(int))
            varies = np.ptp(x[repeated]) > 0 and np.ptp(y[repeated]) > 0
            if varies:
                assert value == pytest.approx(expected(x[repeated], y[repeated]).statistic, abs=1e-12)
            else:
                assert math.isnan(value)


def test_each_band_is_resampled_within_itself() -> None:
    bands = np.array([0, 1, 0, 1, 1, 2])
    counts = resampled(bands, 500, np.random.default_rng(0))
    assert counts[0].tolist() == [1] * 6
    for band in range(3):
        assert (counts[:, bands == band].sum(axis=1) == (bands == band).sum()).all()
    # A network is in a resample of its band once on average.
    assert np.abs(counts[1:].mean(axis=0) - 1).max() < 0.15


def test_within_is_the_mean_of_bands_of_four_or_more() -> None:
    values = np.array([1.0, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3])
    accuracy = np.array([1.0, 2, 3, 4, 8, 7, 6, 5, 1, 2, 3])
    bands = np.array([0] * 4 + [1] * 4 + [3] * 3)
    found = correlations(kendall, values, accuracy, bands, resampled(bands, 20, np.random.default_rng(0)))
    of_bands = [band.value for band in found.bands]
    assert of_bands[:2] == [1.0, -1.0]
    assert math.isnan(of_bands[2])
    assert math.isnan(of_bands[3])
    assert found.within.value == 0.0
    assert found.overall.value == pytest.approx(stats.kendalltau(values, accuracy).statistic)


def test_a_figure_that_does_not_vary_has_no_correlation() -> None:
    bands = np.zeros(5, dtype=np.int64)
    found = correlations(spearman, np.ones(5), np.arange(5.0), bands, resampled(bands, 20, np.random.default_rng(0)))
    assert all(math.isnan(each) for each in (*found.within, *found.overall, *found.bands[0]))


def test_intervals_cover_what_they_say() -> None:
    # Of pairs of normals with correlation r, Kendall's τ is 2/π·asin(r).
    generator, expected, covered = np.random.default_rng(0), 2 / math.pi * math.asin(0.6), 0
    bands = np.repeat([0, 1], 30)
    for _ in range(100):
        x = generator.normal(size=60)
        y = 0.6 * x + 0.8 * generator.normal(size=60)
        found = correlations(kendall, x, y, bands, resampled(bands, 200, generator)).within
        covered += found.low <= expected <= found.high
    assert 85 <= covered <= 100


def test_percentiles_are_those_of_the_resamples_alone() -> None:
    found = interval(np.concatenate([[99.0], np.linspace(0, 1, 1001), [np.nan]]))
    assert found == pytest.approx((99.0, 0.025, 0.975))


def test_a_lead_is_the_difference_within_bands_of_the_same_resamples() -> None:
    generator = np.random.default_rng(0)
    bands, accuracy = np.repeat([0, 1, 2], 10), generator.normal(size=30)
    good, bad = accuracy + 0.1 * generator.normal(size=30), generator.normal(size=30)
    counts = resampled(bands, 200, generator)
    ahead = correlation_gain(kendall, good, bad, accuracy, bands, counts)
    of_each = [correlations(kendall, values, accuracy, bands, counts).within.value for values in (good, bad)]
    assert ahead.value == pytest.approx(of_each[0] - of_each[1])
    assert ahead.low > 0
    assert correlation_gain(kendall, good, good, accuracy, bands, counts) == (0.0, 0.0, 0.0)


def test_the_ceiling_is_what_exact_values_reach_with_those_measured_on_both_halves() -> None:
    generator = np.random.default_rng(0)
    exact = generator.normal(size=2000)
    one, other = (exact + generator.normal(size=2000) for _ in range(2))
    counts = np.ones((1, 2000))
    reached = kendall(counts, exact, (one + other) / 2)[0]
    assert ceiling(counts, one, other)[0] == pytest.approx(reached, abs=0.02)
    assert reached == pytest.approx(0.61, abs=0.03)


def test_the_ceiling_of_resamples_repeats_networks_and_is_1_without_noise_and_0_with_nothing_else() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=12), generator.normal(size=12)
    counts = resampled(np.zeros(12, dtype=np.int64), 5, generator)
    for row, found in zip(counts, ceiling(counts, one, one + other), strict=True):
        repeated = np.repeat(np.arange(12), row.astype(int))
        r = max(0.0, float(np.corrcoef(one[repeated], (one + other)[repeated])[0, 1]))
        assert found == pytest.approx(2 / math.pi * math.asin(math.sqrt(2 * r / (1 + r))))
    assert ceiling(counts, one, one)[0] == pytest.approx(1, abs=1e-6)
    assert ceiling(counts, one, -one)[0] == 0
    assert math.isnan(ceiling(counts, one, np.full(12, 0.3))[0])
