"""Bounds on fitness under limits, held against every network of small spaces."""

import dataclasses
import math

import numpy as np
import pytest
from helpers.networks.exhaustive import Case, cases, quantile, tables
from helpers.networks.strategies import runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.exact.completion_bounds import bound_completions
from fedpareto.cache.exact.plan import plan_of
from fedpareto.cache.exact.prices import Front, at_prices, slopes_of, sweeping, tightest
from fedpareto.cache.exact.relaxation import LinearRelaxation, linear_of, relax
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.space import SearchSpace

_LOG_PRICES = st.none() | st.floats(-12, 6)


def _linear(
    space: SearchSpace, weights: FitnessSettings, costs: list[AdditiveCost], resolution: int = 0
) -> LinearRelaxation:
    plan = plan_of(space, weights, costs, resolution)
    return linear_of(plan, bound_completions(plan, space.depths), space.depths, weights)


def _regular(case: Case) -> FloatArray:
    """The fitness of every network without its depth irregularity, which bounds leave out."""
    regular: FloatArray = case.scores.fitness + case.weights.depth_penalty * case.scores.depth_regularity
    return regular


@given(cases(networks=4000), st.data())
@runs(50)
def test_any_prices_bound_the_fitness_of_every_network_within_rho0(case: Case, data: st.DataObject) -> None:
    resolution = data.draw(st.integers(0, len(case.space.resolutions) - 1))
    costs = [count_cost(case.space, "macs"), data.draw(tables(case.space))]
    linear = _linear(case.space, case.weights, costs, resolution)
    here = (case.genes[:, 0] == resolution) & case.scores.feasible
    paid = np.stack([cost.of(case.space, case.genes[here]) for cost in costs])
    drawn = data.draw(st.tuples(_LOG_PRICES, _LOG_PRICES, _LOG_PRICES))
    prices = np.array([0.0 if value is None else math.exp(value) for value in drawn])
    prices[:2] /= [cost.of(case.space, case.genes).max() + 1 for cost in costs]
    prices[2] *= math.isfinite(linear.lack)
    (start,) = relax(linear, prices[None]).start(linear)
    lack = prices[2] * (linear.lack if prices[2] else 0.0)
    # Whatever the limits are, start + prices@limits bounds the networks within them: each is within its own costs.
    excess = _regular(case)[here] - (start + prices[:2] @ paid + lack)
    assert excess.max(initial=-math.inf) <= 10 * case.tolerance + 1e-12 * lack


@given(cases(networks=4000))
@runs(30)
def test_without_prices_and_rho_the_bound_is_the_highest_fitness(case: Case) -> None:
    weights = dataclasses.replace(
        case.weights, entropy="stage", effectiveness_weight=0.0, depth_penalty=0.0, max_effectiveness=100.0
    )
    fitness = score(case.space, case.genes, weights).fitness
    for resolution in range(len(case.space.resolutions)):
        linear = _linear(case.space, weights, [count_cost(case.space, "macs")], resolution)
        (bound,) = relax(linear, np.zeros((1, 2))).start(linear)
        assert abs(bound - fitness[case.genes[:, 0] == resolution].max()) <= case.tolerance


@given(cases(networks=4000), st.data())
@runs(30)
def test_all_of_the_tightest_prices_bound_every_network_within_the_limits(case: Case, data: st.DataObject) -> None:
    costs = [count_cost(case.space, "macs"), count_cost(case.space, "params"), data.draw(tables(case.space))]
    linear, here = _linear(case.space, case.weights, costs), case.genes[:, 0] == 0
    paid = np.stack([cost.of(case.space, case.genes[here]) for cost in costs])
    limits = np.array([data.draw(quantile(paid[0])), *(data.draw(st.just(math.inf) | quantile(r)) for r in paid[1:])])
    limited = np.isfinite(linear.limits(limits))
    prices = tightest(linear, linear.limits(limits))
    assert (prices[:, ~limited] == 0).all()
    assert np.isfinite(prices).all()
    assert (prices >= 0).all()
    bounds = relax(linear, prices).start(linear) + prices[:, limited] @ linear.limits(limits)[limited]
    within = _regular(case)[here][(paid <= limits[:, None]).all(axis=0) & case.scores.feasible[here]]
    assert (within.max(initial=-math.inf) <= bounds + 10 * case.tolerance + 1e-12 * np.abs(bounds)).all()


def test_the_tightest_bound_of_mobilenet_tiny_is_far_below_that_without_prices() -> None:
    space = tiny_space()
    linear, limits = _linear(space, space.fitness, [count_cost(space, "macs")], 2), np.array([1_000_000.0])
    (free,) = relax(linear, np.zeros((1, 2))).start(linear)
    prices = tightest(linear, linear.limits(limits))
    limited = np.isfinite(linear.limits(limits))
    bounds = relax(linear, prices).start(linear) + prices[:, limited] @ linear.limits(limits)[limited]
    genes = random_genes(space, 20_000, np.random.default_rng(0))
    genes[:, 0] = 2
    scores = score(space, genes)
    within = scores.entropy.sum(axis=0)[(scores.macs <= 1_000_000) & scores.feasible]
    assert within.max() <= bounds.min()
    assert bounds.min() < 0.8 * free


@pytest.mark.parametrize("limit", [1.0, 0.0, 1e-6])
def test_limits_that_no_network_meets_have_finite_prices(limit: float) -> None:
    space = tiny_space()
    linear = _linear(space, space.fitness, [count_cost(space, "macs"), count_cost(space, "params")])
    prices = tightest(linear, linear.limits(np.array([limit, math.inf])))
    (free,) = relax(linear, np.zeros((1, 3))).start(linear)
    assert (prices[:, 0] > 0).all()
    assert (prices[:, 0] <= abs(free) / (limit or 1.0) * math.exp(6) * (1 + 1e-12)).all()
    assert (prices[:, 1] == 0).all()
    assert np.isfinite(relax(linear, prices).start(linear)).all()


def test_costs_without_a_limit_have_no_price() -> None:
    space = tiny_space()
    weights = dataclasses.replace(space.fitness, max_effectiveness=100.0)
    linear = _linear(space, weights, [count_cost(space, "macs")])
    assert not tightest(linear, linear.limits(np.array([math.inf]))).any()


def test_prices_of_a_sweep_fall_to_nothing_and_stand_for_networks_of_all_sizes() -> None:
    space = tiny_space()
    linear = _linear(space, space.fitness, [count_cost(space, "macs")], 2)
    prices = sweeping(linear, linear.limits(np.array([math.inf])), 16)[:, 0]
    assert (np.diff(prices) < 0).all()
    assert prices[-1] == 0
    assert 8 <= len(prices) <= 17
    assert np.array_equal(at_prices(linear, linear.limits(np.array([math.inf])), prices)[:, 0], prices)


def test_the_slopes_of_a_front_are_those_of_its_hull() -> None:
    front = Front(np.array([1.0, 2.0, 3.0, 4.0, 6.0]), np.array([0.0, 4.0, 4.5, 6.0, 7.0]))
    assert slopes_of(front, 10).tolist() == [4.0, 1.0, 0.5, 0.0]
    assert slopes_of(front, 2).tolist() == [4.0, 0.5, 0.0]
    assert slopes_of(Front(np.array([1.0]), np.array([2.0])), 4).tolist() == [0.0]
