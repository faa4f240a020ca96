import dataclasses
import math

import numpy as np
import pytest
from exhaustive import Case, cases, quantile, tables
from hypothesis import given
from hypothesis import strategies as st
from strategies import runs, tiny_space

from cache.additive import Plan, count_cost, plan_of
from cache.outlook import look_ahead
from cache.pruning import Target, places_of
from cache.relaxation import relax, tightest
from fitness.blocks import FloatArray
from fitness.score import score
from supernet.genes import random_genes
from supernet.space import FitnessSettings, SearchSpace

_LOG_PRICES = st.none() | st.floats(-12, 6)


def _later_weights(space: SearchSpace, plan: Plan, weights: FitnessSettings) -> FloatArray:
    """What entropy gains at most in all later stages for each unit of a stage's log-widths."""
    if weights.entropy == "stage":
        return np.zeros(len(space.stages))
    most = np.array([stage.weights.max() for stage in plan.stages])
    return np.array([most[s + 1 :].sum() for s in range(len(most))])


def _entropy(case: Case) -> FloatArray:
    alphas = np.broadcast_to(case.weights.entropy_weights, len(case.space.stages))
    entropy: FloatArray = alphas @ case.scores.entropy
    entropy = entropy - case.weights.block_penalty * case.scores.blocks
    return entropy - case.weights.width_penalty * case.scores.width_violation


@given(cases(most=4000), st.data())
@runs(80)
def test_any_prices_bound_the_entropy_of_every_network(case: Case, data: st.DataObject) -> None:
    resolution = data.draw(st.integers(0, len(case.space.resolutions) - 1))
    costs = [count_cost(case.space, "macs"), data.draw(tables(case.space))]
    plan = plan_of(case.space, case.weights, costs, resolution)
    here = case.genes[:, 0] == resolution
    paid = np.stack([cost.of(case.space, case.genes[here]) for cost in costs])
    logarithms = data.draw(st.tuples(_LOG_PRICES, _LOG_PRICES))
    prices = np.array([0.0 if value is None else math.exp(value) for value in logarithms]) / paid.max(axis=1)
    start = relax(plan, case.space.depths, _later_weights(case.space, plan, case.weights), prices).start(plan)
    # Whatever the limits are, start + prices@limits bounds the networks within them: each is within its own costs.
    excess = _entropy(case)[here] - (start + prices @ paid)
    assert excess.max() <= case.tolerance


@given(cases(most=4000))
@runs(60)
def test_without_prices_and_prefixes_the_bound_is_the_highest_entropy(case: Case) -> None:
    weights = dataclasses.replace(case.weights, entropy="stage")
    entropy = _entropy(case._replace(scores=score(case.space, case.genes, weights)))
    costs = [count_cost(case.space, "macs")]
    bounds = []
    for resolution in range(len(case.space.resolutions)):
        plan = plan_of(case.space, weights, costs, resolution)
        bounds.append(relax(plan, case.space.depths, np.zeros(len(plan.stages)), np.zeros(1)).start(plan))
        assert abs(bounds[-1] - entropy[case.genes[:, 0] == resolution].max()) <= case.tolerance
    assert abs(max(bounds) - entropy.max()) <= case.tolerance


@given(cases(most=4000), st.data())
@runs(60)
def test_the_tightest_bound_holds_for_every_network_within_the_limits(case: Case, data: st.DataObject) -> None:
    costs = [count_cost(case.space, "macs"), count_cost(case.space, "params"), data.draw(tables(case.space))]
    plan, here = plan_of(case.space, case.weights, costs, 0), case.genes[:, 0] == 0
    paid = np.stack([cost.of(case.space, case.genes[here]) for cost in costs])
    limits = np.array([data.draw(quantile(paid[0])), *(data.draw(st.just(math.inf) | quantile(r)) for r in paid[1:])])
    later, limited = _later_weights(case.space, plan, case.weights), np.isfinite(limits)
    found = tightest(plan, case.space.depths, later, limits)
    assert (found.prices[~limited] == 0).all()
    assert np.isfinite(found.prices).all()
    assert (found.prices >= 0).all()
    bound = found.start(plan) + float(found.prices[limited] @ limits[limited])
    within = _entropy(case)[here][(paid <= limits[:, None]).all(axis=0)]
    assert within.max(initial=-math.inf) <= bound + case.tolerance


def test_the_tightest_bound_of_mobilenet_tiny_is_far_below_that_without_prices() -> None:
    space = tiny_space()
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 2)
    later, limits = np.zeros(3), np.array([1_000_000.0])
    free = relax(plan, space.depths, later, np.zeros(1)).start(plan)
    found = tightest(plan, space.depths, later, limits)
    bound = found.start(plan) + float(found.prices @ limits)
    genes = random_genes(space, 20_000, np.random.default_rng(0))
    genes[:, 0] = 2
    scores = score(space, genes)
    within = scores.entropy.sum(axis=0)[scores.macs <= 1_000_000]
    assert within.max() <= bound
    assert bound < 0.8 * free


@pytest.mark.parametrize("limit", [1.0, 0.0, 1e-6])
def test_limits_that_no_network_meets_have_finite_prices(limit: float) -> None:
    space = tiny_space()
    costs = [count_cost(space, "macs"), count_cost(space, "params")]
    plan = plan_of(space, space.fitness, costs, 0)
    limits = np.array([limit, math.inf])
    found = tightest(plan, space.depths, np.zeros(3), limits)
    scale = abs(relax(plan, space.depths, np.zeros(3), np.zeros(2)).start(plan)) / (limit or 1.0)
    assert scale * math.exp(-12) <= found.prices[0] <= scale * math.exp(6) * (1 + 1e-12)
    assert found.prices[1] == 0
    assert math.isfinite(found.start(plan))


def test_costs_without_a_limit_have_no_price() -> None:
    space = tiny_space()
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 0)
    found = tightest(plan, space.depths, np.zeros(3), np.array([math.inf]))
    assert found.prices.tolist() == [0.0]


@pytest.mark.parametrize(
    ("beam", "beat", "priced"), [(None, -math.inf, False), (50, -math.inf, True), (None, 100.0, True)]
)
def test_prices_are_used_where_they_drop_what_is_not_fit_enough(beam: int | None, beat: float, priced: bool) -> None:
    space = tiny_space()
    plan = plan_of(space, space.fitness, [count_cost(space, "macs")], 0)
    target = Target(space.fitness, np.array([1e6]), sweep=True, beam=beam, beat=beat)
    places = places_of(plan, look_ahead(plan, space.depths), space.depths, target)
    assert all((place.prices is not None) == priced for place in places.before)
    assert all((place.prices is not None) == priced for stage in places.inside for place in stage)
