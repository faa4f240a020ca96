import dataclasses
import math

import numpy as np
import pytest
from helpers.networks.strategies import preset, tiny_space
from helpers.runs.rankings import PLANTED, planted
from scipy.optimize import approx_fprime

from fedpareto.search.ranking.fitting.weights import (
    STRENGTHS,
    FitOptions,
    LeftOut,
    Pairs,
    _problem,
    check_fittable,
    fit_weights,
    fitted_settings,
    halves,
    kendall_within,
    strongest,
)
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space_file import load_space

_BOTH: tuple[Pairs, Pairs] = ("band", "all")


@pytest.mark.parametrize("name", ["mobilenet-cifar", "resnet-cifar"])
def test_a_planted_ranking_is_recovered_on_networks_held_out(name: str) -> None:
    space = preset(name)
    start = FitnessSettings()
    sample = planted(space, count=120)
    fit = fit_weights(sample, start, 0.5, FitOptions(), seed=0)
    held_out = sample.take(fit.held_out)
    assert kendall_within(held_out, PLANTED) == 1
    assert kendall_within(held_out, start) < 0.1
    assert kendall_within(held_out, fit.settings) > 0.7
    assert fit.settings.max_effectiveness == start.max_effectiveness


@pytest.mark.slow
def test_networks_held_out_play_no_part_in_the_fit() -> None:
    sample = planted(tiny_space(), noise=0.02)
    fit = fit_weights(sample, tiny_space().fitness, 0.4, FitOptions(), seed=1)
    altered = sample.accuracy.copy()
    altered[fit.held_out] = np.random.default_rng(0).random(len(fit.held_out))
    again = fit_weights(dataclasses.replace(sample, accuracy=altered), tiny_space().fitness, 0.4, FitOptions(), seed=1)
    assert again.settings == fit.settings
    assert again.cross_validation == fit.cross_validation
    assert sorted([*fit.fitted, *fit.held_out]) == list(range(len(sample)))
    altered[fit.fitted[0]] = 0.0 if sample.accuracy[fit.fitted[0]] > 0.5 else 1.0
    other = fit_weights(dataclasses.replace(sample, accuracy=altered), tiny_space().fitness, 0.4, FitOptions(), seed=1)
    assert other.settings != fit.settings


def test_the_strength_is_the_strongest_within_the_spread_of_the_best() -> None:
    tried = {3.0: LeftOut(0.1, 0.3), 1.0: LeftOut(0.42, 0.0), 0.3: LeftOut(0.5, 0.1), 0.1: LeftOut(0.45, 0.2)}
    assert strongest(tried) == 1.0
    assert strongest({**tried, 0.3: LeftOut(0.5, 0.04)}) == 0.3
    fit = fit_weights(planted(tiny_space(), noise=0.05), tiny_space().fitness, 0.5, FitOptions(), seed=0)
    assert fit.strength == strongest(fit.cross_validation)
    assert list(fit.cross_validation) == sorted(STRENGTHS, reverse=True)


def test_a_strong_penalty_leaves_the_weights_and_a_weak_one_fits() -> None:
    space = tiny_space()
    sample = planted(space)
    still = fitted_settings(sample, space.fitness, 1e6, FitOptions())
    assert still.depth_penalty == pytest.approx(space.fitness.depth_penalty, abs=1e-2)
    assert np.broadcast_to(still.entropy_weights, 3).tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    taus = [
        kendall_within(sample, fitted_settings(sample, space.fitness, strength, FitOptions()))
        for strength in (10, 0.01)
    ]
    assert kendall_within(sample, space.fitness) <= taus[0] < taus[1]


def test_the_gradient_is_that_of_the_loss() -> None:
    problem = _problem(planted(tiny_space(), count=40, noise=0.1), tiny_space().fitness, FitOptions("all"))
    at = np.random.default_rng(0).normal(0, 0.3, size=len(problem.free))

    def value(moved: FloatArray) -> float:
        return problem.loss(moved, 0.1)[0]

    assert approx_fprime(at, value, 1e-6) == pytest.approx(problem.loss(at, 0.1)[1], abs=1e-4)


def test_pairs_are_of_one_band_unless_all_are_asked_for() -> None:
    sample = planted(tiny_space(), count=24, bands=3)
    within, every = (_problem(sample, tiny_space().fitness, FitOptions(pairs)) for pairs in _BOTH)
    assert len(within.better) == 3 * math.comb(8, 2)
    assert len(every.better) == math.comb(24, 2)
    assert (sample.band[within.better] == sample.band[within.worse]).all()
    assert (sample.accuracy[within.better] > sample.accuracy[within.worse]).all()
    assert within.importance.sum() == pytest.approx(1)


def test_weights_of_what_does_not_vary_stay_as_they_are() -> None:
    # With one depth, neither Q nor B tells networks apart.
    space = dataclasses.replace(tiny_space(), depths=(2,))
    fitted = fitted_settings(planted(space), space.fitness, 0.01, FitOptions())
    assert fitted.depth_penalty == space.fitness.depth_penalty
    assert fitted.block_penalty == 0
    assert fitted.kind_weights != (1.0, 1.0, 1.0)
    assert min(*fitted.entropy_weights, *fitted.kind_weights) >= 0


def test_only_the_fields_asked_for_are_fitted() -> None:
    sample, start = planted(tiny_space(), count=80), tiny_space().fitness
    fitted = fitted_settings(sample, start, 0.01, FitOptions(fields=("block_penalty", "depth_penalty")))
    assert fitted.block_penalty > 10
    assert fitted.depth_penalty != start.depth_penalty
    assert (fitted.effectiveness_weight, fitted.width_penalty) == (start.effectiveness_weight, start.width_penalty)
    assert (fitted.entropy_weights, fitted.kind_weights) == ((1.0,), (1.0,))
    assert kendall_within(sample, fitted) > kendall_within(sample, start) + 0.3


def test_networks_of_equal_accuracy_change_nothing() -> None:
    sample = planted(tiny_space())
    level = dataclasses.replace(sample, accuracy=np.full(len(sample), 0.5))
    assert fitted_settings(level, tiny_space().fitness, 0.1, FitOptions()) == tiny_space().fitness


def test_a_share_of_each_band_is_held_out() -> None:
    band = np.repeat([0, 1, 2], [10, 20, 7])
    held_out, fitted = halves(band, 0.3, np.random.default_rng(0))
    assert np.bincount(band[held_out]).tolist() == [3, 6, 2]
    assert sorted([*held_out, *fitted]) == list(range(37))


def test_too_few_networks_are_refused_with_what_it_takes() -> None:
    with pytest.raises(UserError, match=r"8 networks to fit on and 4 held out; of 20 networks .* leaves 5 and 5"):
        fit_weights(planted(tiny_space(), count=20, bands=2), tiny_space().fitness, 0.5, FitOptions(), 0)


def test_entropy_over_all_blocks_is_refused() -> None:
    prefix = dataclasses.replace(load_space("mobilenet-tiny").fitness, entropy="prefix")
    with pytest.raises(UserError, match="entropy: stage, and the fitness has entropy: prefix"):
        check_fittable(prefix)
    check_fittable(load_space("mobilenet-tiny").fitness)
