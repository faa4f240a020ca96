import dataclasses

import numpy as np
import pytest
from helpers.networks.spaces import SMALL, listed

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.nsga2.solver import Nsga2Settings, search_front
from fedpareto.fitness.score import score
from fedpareto.search.query.evolution import DEFAULT_SETTINGS, evolve, front_alone
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode, gene_layout
from fedpareto.supernet.space_file import load_space

QUICK = Nsga2Settings(population=40, generations=30)
HARDLY = Nsga2Settings(population=10, generations=1)


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
    everything = listed(SMALL, settings)
    within = everything.within(limits)
    assert 0 < within.sum() < len(within)
    found = evolve(SMALL, settings, limits, settings=QUICK)
    assert found.fitness == pytest.approx(everything.scores.fitness[within].max(), rel=1e-12)
    assert limits.macs is None or found.macs <= limits.macs
    assert limits.params is None or found.params <= limits.params
    assert found.rho <= settings.max_effectiveness


def test_the_search_never_returns_less_than_the_best_it_was_given() -> None:
    space, limits = load_space("mobilenet-cifar"), Limits(macs=60_000_000)
    strong = evolve(space, space.fitness, limits, settings=Nsga2Settings(population=100, generations=60, seed=5))
    known = encode(space, strong.architecture)[None]
    assert evolve(space, space.fitness, limits, settings=HARDLY).fitness < strong.fitness
    assert evolve(space, space.fitness, limits, known, HARDLY).fitness >= strong.fitness


def test_known_networks_are_ranked_by_the_weights_searched_for() -> None:
    space, limits = load_space("mobilenet-cifar"), Limits(macs=60_000_000)
    other = dataclasses.replace(space.fitness, entropy_weights=(1.0, 0.0, 0.0, 0.0, 0.0))
    strong = evolve(space, other, limits, settings=Nsga2Settings(population=50, generations=20))
    front = search_front(space, space.fitness, limits, Nsga2Settings(population=50, generations=20)).genes
    known = np.concatenate([front, encode(space, strong.architecture)[None]])
    fitness = score(space, known, space.fitness).fitness
    assert (fitness > fitness[-1]).sum() > HARDLY.population // 2
    assert evolve(space, other, limits, settings=HARDLY).fitness < strong.fitness
    assert evolve(space, other, limits, known, HARDLY).fitness >= strong.fitness


def test_known_networks_beyond_the_limits_do_no_harm() -> None:
    largest = gene_layout(SMALL).sizes[None] - 1
    assert evolve(SMALL, SMALL.fitness, Limits(macs=100_000), largest, QUICK).macs <= 100_000


def test_no_known_networks_are_as_none_given() -> None:
    limits, nothing = Limits(macs=100_000), np.empty((0, len(gene_layout(SMALL).sizes)), dtype=np.int64)
    assert evolve(SMALL, SMALL.fitness, limits, nothing, QUICK) == evolve(SMALL, SMALL.fitness, limits, settings=QUICK)


def test_the_same_seed_finds_the_same_architecture() -> None:
    limits = Limits(macs=100_000)
    assert evolve(SMALL, SMALL.fitness, limits, settings=QUICK) == evolve(SMALL, SMALL.fitness, limits, settings=QUICK)


def test_limits_that_only_inefficient_networks_meet_name_the_smallest_feasible_one() -> None:
    strict = FitnessSettings(max_effectiveness=float(listed(SMALL).scores.rho.min()) + 0.01)
    scores = listed(SMALL, strict).scores
    smallest = int(scores.macs[scores.feasible].min())
    with pytest.raises(BudgetError, match=r"the smallest found has .* MACs") as caught:
        evolve(SMALL, strict, Limits(macs=smallest - 1), settings=dataclasses.replace(QUICK, generations=60))
    assert f"{smallest / 1000:.4g}K" in str(caught.value)


def test_an_unreachable_budget_names_the_smallest_network() -> None:
    with pytest.raises(BudgetError, match=f"no network of {SMALL.name} has at most 10 MACs; the smallest has"):
        evolve(SMALL, SMALL.fitness, Limits(macs=10), settings=QUICK)


def test_the_front_of_a_search_alone_is_a_front_and_reports_each_generation() -> None:
    calls: list[tuple[int, int]] = []
    macs, fitness = front_alone(
        SMALL, SMALL.fitness, ProgressListener(lambda _, done, total: calls.append((done, total)))
    )
    everything = listed(SMALL)
    feasible = everything.scores.feasible
    best = [everything.scores.fitness[feasible & (everything.scores.macs <= budget)].max() for budget in macs]
    assert (np.diff(macs) > 0).all()
    assert (np.diff(fitness) > 0).all()
    assert (fitness <= np.array(best) * (1 + 1e-12)).all()
    assert calls == [(n, DEFAULT_SETTINGS.generations) for n in range(1, DEFAULT_SETTINGS.generations + 1)]
