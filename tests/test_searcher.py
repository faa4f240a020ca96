import dataclasses
import itertools

import numpy as np
import pytest
from federation import MICRO, micro_space

from cache.entries import make_entries
from cache.limits import Limits
from cache.nsga2 import Nsga2Settings, solve_nsga2
from fitness.score import Scores, score
from search.searcher import search
from supernet.errors import BudgetError
from supernet.genes import encode, gene_layout
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, load_space

QUICK = Nsga2Settings(population=40, generations=30)

#: A space of some thousand gene vectors.
SMALL = micro_space(kernels=(3, 5), expands=(2, 3), depths=(1, 2), width_multipliers=(0.5, 1.0))


def _all(settings: FitnessSettings) -> tuple[IntArray, Scores]:
    sizes = gene_layout(SMALL).sizes
    genes = np.array(list(itertools.product(*(range(size) for size in sizes))), dtype=np.int64)
    return genes, score(SMALL, genes, settings)


@pytest.mark.parametrize(
    ("limits", "settings"),
    [
        (Limits(macs=120_000), FitnessSettings()),
        (Limits(macs=120_000, params=9_000), FitnessSettings()),
        (Limits(params=7_000), FitnessSettings()),
        (Limits(macs=150_000), FitnessSettings(max_effectiveness=0.9)),
        (Limits(macs=150_000), FitnessSettings(entropy="prefix", depth_penalty=1.0)),
    ],
)
def test_the_search_finds_the_brute_force_optimum_of_a_small_space(limits: Limits, settings: FitnessSettings) -> None:
    _, scores = _all(settings)
    within = scores.feasible & (limits.violations(scores) <= 0).all(axis=0)
    assert 0 < within.sum() < len(within)
    best = scores.fitness[within].max()
    found = search(SMALL, settings, limits, settings=QUICK)
    assert found.fitness == pytest.approx(best, rel=1e-12)
    assert limits.macs is None or found.macs <= limits.macs
    assert limits.params is None or found.params <= limits.params
    assert found.rho <= settings.max_effectiveness


def test_the_search_never_returns_less_than_the_best_it_was_given() -> None:
    space, limits = load_space("mobilenet-cifar"), Limits(macs=60_000_000)
    strong = search(space, space.fitness, limits, settings=Nsga2Settings(population=100, generations=60, seed=5))
    hardly = Nsga2Settings(population=10, generations=1)
    assert search(space, space.fitness, limits, settings=hardly).fitness < strong.fitness
    assert search(space, space.fitness, limits, [strong], hardly).fitness >= strong.fitness


def test_known_entries_are_ranked_by_the_weights_searched_for_and_not_by_their_own() -> None:
    space, limits = load_space("mobilenet-cifar"), Limits(macs=60_000_000)
    other = dataclasses.replace(space.fitness, entropy_weights=(1.0, 0.0, 0.0, 0.0, 0.0))
    settings, hardly = Nsga2Settings(population=50, generations=20), Nsga2Settings(population=10, generations=1)
    strong = search(space, other, limits, settings=settings)
    entries = solve_nsga2(space, space.fitness, limits, 10, settings)
    entries += make_entries(space, encode(space, strong.architecture)[None], space.fitness)
    assert sum(entry.fitness > entries[-1].fitness for entry in entries) > hardly.population // 2
    assert search(space, other, limits, settings=hardly).fitness < strong.fitness
    assert search(space, other, limits, entries, hardly).fitness >= strong.fitness


def test_known_entries_beyond_the_limits_do_no_harm() -> None:
    entries = make_entries(SMALL, gene_layout(SMALL).sizes[None] - 1, SMALL.fitness)
    found = search(SMALL, SMALL.fitness, Limits(macs=100_000), entries, QUICK)
    assert found.macs <= 100_000


def test_the_same_seed_finds_the_same_architecture() -> None:
    limits = Limits(macs=100_000)
    assert search(SMALL, SMALL.fitness, limits, settings=QUICK) == search(SMALL, SMALL.fitness, limits, settings=QUICK)


def test_limits_that_only_inefficient_networks_meet_name_the_smallest_feasible_one() -> None:
    strict = FitnessSettings(max_effectiveness=float(_all(FitnessSettings())[1].rho.min()) + 0.01)
    _, scores = _all(strict)
    smallest = int(scores.macs[scores.feasible].min())
    with pytest.raises(BudgetError, match=r"the smallest found has .* MACs") as caught:
        search(SMALL, strict, Limits(macs=smallest - 1), settings=dataclasses.replace(QUICK, generations=60))
    assert f"{smallest / 1000:.4g}K" in str(caught.value)


def test_an_unreachable_budget_names_the_smallest_network() -> None:
    with pytest.raises(BudgetError, match=f"no network of {MICRO.name} has at most 10 MACs; the smallest has"):
        search(SMALL, SMALL.fitness, Limits(macs=10), settings=QUICK)
