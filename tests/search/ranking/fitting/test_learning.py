import dataclasses
from typing import Literal

import numpy as np
import pytest
from helpers.networks.learned import drawn_terms
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import planted

from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.learning import STRENGTHS, learn_terms, partition, scaled
from fedpareto.search.ranking.fitting.weights import kendall_within
from fedpareto.search.ranking.measuring.bands import draw_subnets, macs_bands
from fedpareto.search.ranking.measuring.design import Region, spread_subnets
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode_all, random_genes
from fedpareto.supernet.learned import LearnedTerms
from fedpareto.supernet.space import SearchSpace

_MACS = (200_000, 3_000_000)


def _truth(space: SearchSpace) -> FitnessSettings:
    """A fitness in percentage points that is a sum over blocks: part analytic, part learned."""
    terms = dataclasses.replace(drawn_terms(space, 3, 0.7), intercept=30.0)
    return dataclasses.replace(scaled(space.fitness, 0.03), learned=terms)


def _sample(space: SearchSpace, count: int, noise: float) -> Sample:
    """Spread networks, as accurate as the truth says, with noise in percentage points."""
    region = Region(space, space.fitness, _MACS)
    subnets = spread_subnets(region, count, (), np.random.default_rng(0))
    genes = encode_all(space, [subnet.architecture for subnet in subnets])
    accuracy = score(space, genes, _truth(space)).fitness + noise * np.random.default_rng(1).normal(size=count)
    return Sample(space, genes, accuracy / 100, region.numbers(genes), tuple(region.parts))


def _others(space: SearchSpace) -> Sample:
    """Other networks in bands, without noise."""
    bands = macs_bands(*_MACS, 3, 0.2)
    subnets = draw_subnets(space, space.fitness, bands, 60, 1)
    genes = encode_all(space, [subnet.architecture for subnet in subnets])
    band = np.array([subnet.band for subnet in subnets])
    return Sample(space, genes, score(space, genes, _truth(space)).fitness / 100, band, tuple(bands))


@pytest.mark.slow
def test_an_accuracy_that_is_a_sum_over_blocks_is_learned_from_noisy_networks() -> None:
    space = tiny_space()
    learned = learn_terms(_sample(space, 240, noise=0.7), space.fitness, np.random.default_rng(0))
    others = _others(space)
    assert kendall_within(others, space.fitness) < 0.55
    assert kendall_within(others, learned.settings) > 0.75
    # The fitness is accuracy in percentage points.
    predicted = score(space, others.genes, learned.settings).fitness
    error = predicted - 100 * others.accuracy
    assert np.abs(error).mean() < 0.8
    assert abs(error.mean()) < 0.3


@pytest.mark.slow
def test_without_noise_more_networks_than_effects_leave_no_error() -> None:
    space = tiny_space()
    learned = learn_terms(_sample(space, 240, noise=0.0), space.fitness, np.random.default_rng(0))
    assert learned.strength == min(STRENGTHS)
    assert kendall_within(_others(space), learned.settings) > 0.9


def test_what_cannot_be_learned_leaves_the_analytic_fitness() -> None:
    space, sample = tiny_space(), _sample(tiny_space(), 120, noise=0.0)
    analytic = score(space, sample.genes, space.fitness).fitness
    exact = dataclasses.replace(sample, accuracy=0.2 + analytic / 2000)
    learned = learn_terms(exact, space.fitness, np.random.default_rng(0))
    assert learned.factor == pytest.approx(0.05, rel=1e-4)
    found = score(space, sample.genes, learned.settings).fitness
    assert found.tolist() == pytest.approx((20 + analytic / 20).tolist(), abs=1e-3)


def test_an_analytic_fitness_that_ranks_backwards_is_left_out() -> None:
    space, sample = tiny_space(), _sample(tiny_space(), 120, noise=0.0)
    analytic = score(space, sample.genes, space.fitness).fitness
    backwards = dataclasses.replace(sample, accuracy=0.7 - analytic / 2000)
    learned = learn_terms(backwards, space.fitness, np.random.default_rng(0))
    assert learned.factor == 0
    assert learned.settings.entropy_weights == (0.0,)
    assert kendall_within(backwards, learned.settings) > 0.8


def test_the_strength_is_the_one_that_ranks_networks_left_out_best() -> None:
    space = tiny_space()
    learned = learn_terms(_sample(space, 60, noise=2.0), space.fitness, np.random.default_rng(0))
    assert list(learned.cross_validation) == sorted(STRENGTHS, reverse=True)
    assert learned.cross_validation[learned.strength].value == max(
        found.value for found in learned.cross_validation.values()
    )


def test_the_same_generator_learns_the_same_and_terms_of_before_play_no_part() -> None:
    space, sample = tiny_space(), _sample(tiny_space(), 60, noise=1.0)
    once = learn_terms(sample, space.fitness, np.random.default_rng(5)).settings
    assert isinstance(once.learned, LearnedTerms)
    before = dataclasses.replace(space.fitness, learned=drawn_terms(space))
    assert learn_terms(sample, before, np.random.default_rng(5)).settings == once
    assert once.max_effectiveness == space.fitness.max_effectiveness


@pytest.mark.parametrize("entropy", ["stage", "prefix"])
def test_a_scaled_fitness_is_the_fitness_times_the_factor(entropy: Literal["stage", "prefix"]) -> None:
    space = tiny_space()
    settings = dataclasses.replace(
        space.fitness, entropy=entropy, effectiveness_weight=7.0, width_penalty=0.3, block_penalty=4.0
    )
    genes = random_genes(space, 50, np.random.default_rng(0))
    before, after = score(space, genes, settings), score(space, genes, scaled(settings, 0.25))
    assert after.fitness.tolist() == pytest.approx((0.25 * before.fitness).tolist(), abs=1e-9)
    assert after.feasible.tolist() == before.feasible.tolist()


def test_parts_are_equally_large_and_hold_equally_many_of_every_band() -> None:
    band = np.repeat([0, 1, 2], [20, 35, 30])
    parts = partition(band, np.random.default_rng(0))
    assert set(np.bincount(parts).tolist()) <= {8, 9}
    for number in range(3):
        counts = np.bincount(parts[band == number], minlength=10)
        assert counts.max() - counts.min() <= 1
    assert parts.tolist() != partition(band, np.random.default_rng(1)).tolist()


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(UserError, match=r"--form blocks is fitted to 20 networks at least, .*; given are 19"):
        learn_terms(planted(tiny_space(), count=19, bands=2), tiny_space().fitness, np.random.default_rng(0))
