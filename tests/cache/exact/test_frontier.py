import dataclasses

import numpy as np
import pytest
from helpers.networks.exhaustive import Case, cases, quantile
from helpers.networks.strategies import runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.costs.cost import count_cost
from fedpareto.cache.entries import make_entries
from fedpareto.cache.exact.frontier import Frontier, exact_frontier, frontier_of
from fedpareto.cache.exact.solver import EQUAL, SpaceTooLargeError
from fedpareto.fitness.score import score
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical, gene_layout, random_genes

SPACE = tiny_space()
NO_GENES = np.empty((0, len(gene_layout(SPACE).sizes)), dtype=np.int64)
EMPTY = frontier_of(SPACE, SPACE.fitness, NO_GENES)


@pytest.fixture(scope="module")
def frontier() -> Frontier:
    return exact_frontier(SPACE, SPACE.fitness)


@given(cases())
@runs(60)
def test_a_frontier_holds_its_networks_figures_none_dominated(case: Case) -> None:
    found = exact_frontier(case.space, case.weights)
    scores = score(case.space, found.genes, case.weights)
    assert np.array_equal(found.genes, canonical(case.space, found.genes))
    assert np.array_equal(found.macs, scores.macs)
    assert np.array_equal(found.values, scores.fitness)
    assert scores.feasible.all()
    assert (np.diff(found.macs) > 0).all()
    assert (np.diff(found.values) > 0).all()


@given(cases(), st.data())
@runs(60)
def test_a_frontier_answers_as_the_list_of_all_networks_does(case: Case, data: st.DataObject) -> None:
    found, feasible = exact_frontier(case.space, case.weights), case.scores.feasible
    macs, fitness = case.scores.macs[feasible], case.scores.fitness[feasible]
    if not len(macs):
        assert len(found.macs) == 0
        return
    budget = data.draw(quantile(macs)) + data.draw(st.sampled_from((-1, 0, 1)))
    index, within = found.best_within(budget), macs <= budget
    if index is None:
        assert not within.any()
    else:
        assert found.macs[index] <= budget
        assert abs(found.values[index] - fitness[within].max()) <= case.tolerance
    least = data.draw(quantile(fitness)) - case.tolerance
    index = found.cheapest_reaching(least)
    assert index is not None
    assert found.values[index] >= least
    assert found.macs[index] <= macs[fitness >= least + 2 * case.tolerance].min(initial=macs.max())


def test_the_best_within_a_budget_at_and_beside_every_point(frontier: Frontier) -> None:
    for index, macs in enumerate(frontier.macs):
        assert frontier.best_within(macs) == index
        assert frontier.best_within(macs + 0.5) == index
        assert frontier.best_within(macs - 0.5) == (index - 1 if index else None)
    assert frontier.best_within(None) == len(frontier.macs) - 1
    assert frontier.best_within(10**30) == len(frontier.macs) - 1
    assert frontier.best_within(0) is None


def test_the_cheapest_reaching_a_fitness_at_and_beside_every_point(frontier: Frontier) -> None:
    last = len(frontier.values) - 1
    for index, value in enumerate(frontier.values):
        assert frontier.cheapest_reaching(value) == index
        assert frontier.cheapest_reaching(np.nextafter(value, -np.inf)) == index
        assert frontier.cheapest_reaching(np.nextafter(value, np.inf)) == (index + 1 if index < last else None)
    assert frontier.cheapest_reaching(-np.inf) == 0


def test_the_part_between_two_bounds_includes_both(frontier: Frontier) -> None:
    low, high = int(frontier.macs[3]), int(frontier.macs[9])
    for least, most, part in [
        (low, high, slice(3, 10)),
        (low + 1, high - 1, slice(4, 9)),
        (low - 1, high + 1, slice(3, 10)),
        (None, high, slice(0, 10)),
        (low, None, slice(3, None)),
        (None, None, slice(None)),
    ]:
        found = frontier.within(least, most)
        assert np.array_equal(found.macs, frontier.macs[part])
        assert np.array_equal(found.values, frontier.values[part])
        assert np.array_equal(found.genes, frontier.genes[part])
        assert (found.space, found.fitness, found.extra) == (frontier.space, frontier.fitness, frontier.extra)
    assert len(frontier.within(high, low).macs) == 0


def test_gaps_are_what_networks_lack_to_the_optimum_within_their_macs(frontier: Frontier) -> None:
    at, value = frontier.macs[[4, 4, 5, 4]], frontier.values
    macs = at + np.array([0, 1, -1, 0])
    fitness = [value[4], value[4] - 2.5, value[4] - 1.0, value[4] + 1e-13]
    assert frontier.gaps(macs, fitness).tolist() == pytest.approx([0.0, 2.5, 1.0, 0.0], abs=1e-9)
    assert (frontier.gaps(macs, fitness) >= 0).all()
    assert frontier.gaps(frontier.macs, frontier.values).tolist() == [0.0] * len(frontier.macs)
    assert frontier.gaps([], []).tolist() == []


def test_no_network_is_above_the_frontier(frontier: Frontier) -> None:
    scores = score(SPACE, random_genes(SPACE, 3000, np.random.default_rng(0)))
    macs, fitness = scores.macs[scores.feasible], scores.fitness[scores.feasible]
    optima = frontier.values[[frontier.best_within(budget) or 0 for budget in macs]]
    assert (fitness <= optima + 1e-9).all()
    assert np.allclose(frontier.gaps(macs, fitness), optima - fitness, atol=1e-9)


def test_an_entry_is_a_point_with_all_its_figures(frontier: Frontier) -> None:
    for index in (0, 7, len(frontier.macs) - 1):
        entry = frontier.entry(index)
        assert [entry] == make_entries(SPACE, frontier.genes[[index]], frontier.fitness)
        assert (entry.macs, entry.fitness) == (frontier.macs[index], frontier.values[index])


def test_an_empty_frontier_answers_that_there_is_nothing() -> None:
    assert EMPTY.best_within(10**9) is None
    assert EMPTY.best_within(None) is None
    assert EMPTY.cheapest_reaching(-1e9) is None
    assert len(EMPTY.within(0, 10**9).macs) == 0
    assert "0 and a higher fitness" in EMPTY.certificate()


def test_a_space_without_a_feasible_network_has_an_empty_frontier() -> None:
    found = exact_frontier(SPACE, dataclasses.replace(SPACE.fitness, max_effectiveness=1e-6))
    assert (len(found.macs), len(found.values), found.genes.shape) == (0, 0, NO_GENES.shape)


def test_a_certificate_says_what_is_proven(frontier: Frontier) -> None:
    assert frontier.certificate() == (
        "of all networks of mobilenet-tiny (1.5e+10 gene vectors) with effectiveness ρ ≤ 1.0, none has at most the "
        f"MACs of one of these {len(frontier.macs)} and a higher fitness (to 1e-12)"
    )
    extra = dataclasses.replace(frontier, extra="at most 5 ms latency")
    assert "ρ ≤ 1.0 and at most 5 ms latency, none has" in extra.certificate()
    assert "\n" not in frontier.certificate()


def test_a_frontier_under_another_limit_says_so_and_is_within_it(frontier: Frontier) -> None:
    limit = float(np.median(score(SPACE, frontier.genes).params))
    found = exact_frontier(SPACE, SPACE.fitness, count_cost(SPACE, "params", limit))
    assert found.extra == f"at most {format_quantity(limit)} parameters"
    assert (score(SPACE, found.genes).params <= limit).all()
    assert len(found.macs) > 0
    assert found.values[-1] < frontier.values[-1]
    assert frontier.extra == ""


def test_a_frontier_too_large_for_the_memory_is_refused() -> None:
    with pytest.raises(SpaceTooLargeError, match="mobilenet-tiny"):
        exact_frontier(SPACE, SPACE.fitness, memory=1000)


@given(st.integers(0, 1000))
@runs(25)
def test_dominated_and_infeasible_networks_are_dropped(seed: int) -> None:
    genes = random_genes(SPACE, 200, np.random.default_rng(seed))
    plain = score(SPACE, genes, FitnessSettings(effectiveness_weight=50.0))
    bound = float(np.median(plain.rho))
    weights = FitnessSettings(effectiveness_weight=50.0, max_effectiveness=bound)
    points = [
        (int(macs), float(value))
        for macs, value, rho in zip(plain.macs, plain.fitness, plain.rho, strict=True)
        if rho <= bound
    ]
    best = {
        (macs, value)
        for macs, value in points
        if not any(m <= macs and v >= value and (m, v) != (macs, value) for m, v in points)
    }
    found = frontier_of(SPACE, weights, genes)
    assert list(zip(found.macs.tolist(), found.values.tolist(), strict=True)) == sorted(best)


def test_points_equal_up_to_rounding_are_one() -> None:
    # α scales entropy: a network with more MACs and the same entropy but for the last bits stays out.
    genes = exact_frontier(SPACE, SPACE.fitness).genes
    level = dataclasses.replace(SPACE.fitness, entropy_weights=(1e-16,), depth_penalty=0.0, width_penalty=0.0)
    values = score(SPACE, genes, level).fitness
    assert (np.diff(values) > 0).any()
    assert np.ptp(values) < EQUAL
    found = frontier_of(SPACE, level, genes)
    assert found.macs.tolist() == [score(SPACE, genes, level).macs.min()]
