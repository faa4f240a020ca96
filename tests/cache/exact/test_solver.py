import dataclasses
import math
import unittest.mock
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from helpers.networks.exhaustive import Case, cases, limited, quantile, tables, uneven
from helpers.networks.strategies import preset, runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.exact.frontier import Frontier, exact_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError, solve_best, solve_cheapest, solve_front
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.genes import canonical, gene_layout

#: MACs of the published resnet-cifar rows, their fitness, and the highest fitness within as many MACs.
_PUBLISHED = [
    (458_237_952, 2027.0289647202164, 2046.1020632407474, 456_189_984),
    (508_372_992, 2039.7564763019825, 2069.54067774402, 506_862_624),
    (558_704_640, 2060.2693219862485, 2092.33157199688, 557_218_848),
]


def _within(case: Case, costs: Sequence[AdditiveCost]) -> NDArray[np.bool_]:
    """Which gene vectors have ρ ≤ ρ0 and meet all limits."""
    meets = [cost.of(case.space, case.genes) <= cost.limit for cost in costs]
    within: NDArray[np.bool_] = np.all([case.scores.feasible, *meets], axis=0)
    return within


def _best_at(budgets: FloatArray, cost: FloatArray, fitness: FloatArray) -> FloatArray:
    """The highest fitness within each budget, −∞ where there is no network."""
    order = np.argsort(cost, kind="stable")
    best = np.concatenate([[-np.inf], np.maximum.accumulate(fitness[order])])
    highest: FloatArray = best[np.searchsorted(cost[order], budgets, side="right")]
    return highest


def _check_front(case: Case, costs: Sequence[AdditiveCost]) -> None:
    """Check that the solved front is that of every gene vector, as functions of the first cost."""
    found = solve_front(case.space, case.weights, costs)
    kept = _within(case, costs)
    assert found.shape == (len(found), case.genes.shape[1])
    assert (len(found) > 0) == kept.any()
    if not kept.any():
        return
    assert np.array_equal(found, canonical(case.space, found))
    scores, cost = score(case.space, found, case.weights), costs[0].of(case.space, found)
    assert scores.feasible.all()
    for limit in costs:
        assert (limit.of(case.space, found) <= limit.limit).all()
    assert (np.diff(cost) > 0).all()
    # The solver adds the terms in another order: what it finds better may be equal when scored.
    assert (np.diff(scores.fitness) > -case.tolerance).all()
    every = costs[0].of(case.space, case.genes)[kept]
    budgets = np.unique(every)
    best = _best_at(budgets, every, case.scores.fitness[kept])
    assert np.abs(_best_at(budgets, cost, scores.fitness) - best).max() <= case.tolerance


def _check_best(case: Case, costs: Sequence[AdditiveCost]) -> None:
    """Check that the best network is as fit as the best of every gene vector."""
    found = solve_best(case.space, case.weights, costs)
    kept = _within(case, costs)
    if not kept.any():
        assert found.shape == (0, case.genes.shape[1])
        return
    assert np.array_equal(found, canonical(case.space, found))
    scores = score(case.space, found, case.weights)
    assert scores.feasible.tolist() == [True]
    for cost in costs:
        assert cost.of(case.space, found)[0] <= cost.limit
    assert abs(scores.fitness[0] - case.scores.fitness[kept].max()) <= case.tolerance


@pytest.mark.slow
@given(cases())
@runs(120)
def test_the_front_of_macs_is_that_of_every_network(case: Case) -> None:
    _check_front(case, [count_cost(case.space, "macs")])


def _check_with_bounds(case: Case, data: st.DataObject) -> None:
    """Check all that is solved with bounds, as large spaces are."""
    table = data.draw(tables(case.space))
    costs = [
        count_cost(case.space, "macs", data.draw(quantile(case.scores.macs))),
        count_cost(case.space, "params", data.draw(quantile(case.scores.params))),
        limited(table, data.draw(quantile(table.of(case.space, case.genes)))),
    ]
    with unittest.mock.patch("fedpareto.cache.exact.solver._FEW", 0):
        _check_front(case, [count_cost(case.space, "macs"), *costs[1 : data.draw(st.integers(1, 3))]])
        _check_best(case, costs[: data.draw(st.integers(1, 3))])
        _check_cheapest(case, costs[: data.draw(st.integers(2, 3))], data)


@given(cases(networks=4000), st.data())
@runs(8)
def test_what_bounds_drop_is_of_no_network_that_is_looked_for(case: Case, data: st.DataObject) -> None:
    _check_with_bounds(case, data)


@pytest.mark.slow
@given(cases(), st.data())
@runs(120)
def test_what_bounds_drop_is_of_no_network_that_is_looked_for_in_many_spaces(case: Case, data: st.DataObject) -> None:
    _check_with_bounds(case, data)


@given(cases(), st.data())
@runs(60)
def test_a_limit_on_parameters_leaves_the_front_of_the_networks_within_it(case: Case, data: st.DataObject) -> None:
    limit = data.draw(quantile(case.scores.params))
    _check_front(case, [count_cost(case.space, "macs"), count_cost(case.space, "params", limit)])


@given(cases(), st.data())
@runs(60)
def test_a_limit_on_another_table_leaves_the_front_of_the_networks_within_it(case: Case, data: st.DataObject) -> None:
    table = data.draw(tables(case.space))
    limit = data.draw(quantile(table.of(case.space, case.genes)))
    _check_front(case, [count_cost(case.space, "macs"), limited(table, limit)])


@given(cases(), st.data())
@runs(60)
def test_any_table_may_be_the_cost_of_the_front(case: Case, data: st.DataObject) -> None:
    limit = data.draw(st.just(math.inf) | quantile(case.scores.macs))
    _check_front(case, [data.draw(tables(case.space)), count_cost(case.space, "macs", limit)])


@given(cases(), st.data())
@runs(80)
def test_the_best_within_a_budget_is_that_of_every_network(case: Case, data: st.DataObject) -> None:
    limit = data.draw(quantile(case.scores.macs) | st.sampled_from((1e20, float(case.scores.macs.min() - 1))))
    _check_best(case, [count_cost(case.space, "macs", limit)])


@given(cases(), st.data())
@runs(80)
def test_the_best_within_two_limits_is_that_of_every_network(case: Case, data: st.DataObject) -> None:
    table = data.draw(tables(case.space))
    costs = [
        count_cost(case.space, "macs", data.draw(quantile(case.scores.macs))),
        data.draw(
            quantile(case.scores.params).map(lambda limit: count_cost(case.space, "params", limit))
            | quantile(table.of(case.space, case.genes)).map(lambda limit: limited(table, limit))
        ),
    ]
    _check_best(case, costs)


@given(cases(), st.data())
@runs(60)
def test_the_best_within_three_limits_is_that_of_every_network(case: Case, data: st.DataObject) -> None:
    table = data.draw(tables(case.space))
    costs = [
        count_cost(case.space, "macs", data.draw(quantile(case.scores.macs))),
        count_cost(case.space, "params", data.draw(quantile(case.scores.params))),
        limited(table, data.draw(quantile(table.of(case.space, case.genes)))),
    ]
    _check_best(case, data.draw(st.permutations(costs)))


@pytest.mark.slow
@given(cases(), st.data())
@runs(120)
def test_the_cheapest_of_a_fitness_within_limits_is_that_of_every_network(case: Case, data: st.DataObject) -> None:
    table = data.draw(tables(case.space))
    others = [
        count_cost(case.space, "params", data.draw(quantile(case.scores.params))),
        limited(table, data.draw(quantile(table.of(case.space, case.genes)))),
    ]
    chosen = data.draw(st.sampled_from((others[:1], others[1:], others)))
    _check_cheapest(case, [data.draw(st.just(count_cost(case.space, "macs")) | tables(case.space)), *chosen], data)


def _check_cheapest(case: Case, costs: Sequence[AdditiveCost], data: st.DataObject) -> None:
    """Check that the network of a drawn fitness with least of the first cost is that of every gene vector."""
    least = data.draw(quantile(case.scores.fitness)) - data.draw(st.sampled_from((3.0, -3.0))) * case.tolerance
    every = costs[0].of(case.space, case.genes)
    floor = float(every[case.scores.fitness >= least].min(initial=every.max()))
    found = solve_cheapest(case.space, case.weights, costs, least, floor)
    reaching = _within(case, costs) & (case.scores.fitness >= least)
    assert len(found) == int(reaching.any())
    if len(found):
        assert np.array_equal(found, canonical(case.space, found))
        scores = score(case.space, found, case.weights)
        assert scores.feasible.tolist() == [True]
        assert scores.fitness[0] >= least - case.tolerance
        assert all((cost.of(case.space, found) <= cost.most).all() for cost in costs)
        assert costs[0].of(case.space, found)[0] == pytest.approx(every[reaching].min(), rel=1e-12)


@given(cases(networks=3000))
@runs(30)
def test_the_best_without_limits_is_the_end_of_the_front(case: Case) -> None:
    costs = [count_cost(case.space, "macs")]
    best, front = solve_best(case.space, case.weights, costs), solve_front(case.space, case.weights, costs)
    assert len(best) == min(1, len(front))
    if len(front):
        highest, last = score(case.space, np.concatenate([best, front[-1:]]), case.weights).fitness
        assert abs(highest - last) <= case.tolerance


def test_no_network_may_have_a_rho_of_nothing() -> None:
    space = tiny_space()
    for bound in (0.0, -1.0, 1e-6):
        weights = dataclasses.replace(space.fitness, max_effectiveness=bound)
        costs = [count_cost(space, "macs", 1e9)]
        for found in (solve_front(space, weights, costs), solve_best(space, weights, costs)):
            assert found.shape == (0, len(gene_layout(space).sizes))


def test_a_space_too_large_for_the_memory_is_named_in_one_line() -> None:
    space = tiny_space()
    for solve in (solve_front, solve_best):
        with pytest.raises(SpaceTooLargeError) as caught:
            solve(space, space.fitness, [count_cost(space, "macs", 1e9)], memory=1000)
        assert str(caught.value) == "mobilenet-tiny is too large to be solved exactly within 1 kB of memory"


@pytest.mark.parametrize("solve", [solve_front, solve_best])
def test_the_listener_counts_up_to_the_total_once(solve: Callable[..., IntArray]) -> None:
    space = tiny_space()
    reports: list[tuple[str, int, int]] = []
    listener = ProgressListener(lambda what, done, total: reports.append((what, done, total)))
    solve(space, space.fitness, [count_cost(space, "macs", 1e9)], listener)
    steps = len(space.resolutions) * len(space.stages) * space.max_depth
    assert [(done, total) for _, done, total in reports] == [(done + 1, steps) for done in range(steps)]
    assert all(what.startswith("solving, ") for what, _, _ in reports)


@pytest.mark.parametrize(
    ("params", "expected"),
    [(None, (59_798_016, 2_915_850, 213.71752119073176)), (2_000_000, (59_971_072, 1_937_922, 205.5409812532264))],
)
def test_the_best_of_mobilenet_cifar_within_60m_macs(
    params: int | None, expected: tuple[int, int | None, float]
) -> None:
    space = preset("mobilenet-cifar")
    costs = [count_cost(space, "macs", 60_000_000)]
    if params is not None:
        costs.append(count_cost(space, "params", params))
    scores = score(space, solve_best(space, space.fitness, costs))
    assert scores.macs.tolist() == [expected[0]]
    assert expected[1] in (None, int(scores.params[0]))
    assert scores.fitness.tolist() == pytest.approx([expected[2]], rel=1e-12)


@pytest.fixture(scope="session")
def resnet_frontier() -> Frontier:
    space = preset("resnet-cifar")
    return exact_frontier(space, space.fitness)


@pytest.mark.parametrize(("budget", "published", "optimum", "macs"), _PUBLISHED)
def test_the_optima_of_resnet_cifar_exceed_the_published_networks(
    resnet_frontier: Frontier, budget: int, published: float, optimum: float, macs: int
) -> None:
    index = resnet_frontier.best_within(budget)
    assert index is not None
    assert resnet_frontier.macs[index] == macs
    assert resnet_frontier.values[index] == pytest.approx(optimum, rel=1e-12)
    assert optimum > published
    space = resnet_frontier.space
    genes: IntArray = solve_best(space, space.fitness, [count_cost(space, "macs", budget)])
    assert score(space, genes).fitness[0] == pytest.approx(optimum, rel=1e-12)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_network_exactly_at_a_limit_on_uneven_figures_is_within_it(every: int) -> None:
    # Sums of such figures differ in their last bits with the order they are added in.
    space = dataclasses.replace(tiny_space(), resolutions=(8,))
    table = uneven(space)
    front = solve_front(space, space.fitness, [table])[::every]
    for cost, fitness in zip(table.of(space, front), score(space, front).fitness, strict=True):
        limit = limited(table, float(cost))
        found = solve_best(space, space.fitness, [limit])
        assert score(space, found).fitness.tolist() == pytest.approx([fitness], rel=1e-12)
        assert len(solve_front(space, space.fitness, [count_cost(space, "macs"), limit])) > 0
