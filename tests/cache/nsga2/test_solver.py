import dataclasses
import functools
import itertools
import re

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.exact.frontier import Frontier, frontier_of
from fedpareto.cache.nsga2.sampling import ladder
from fedpareto.cache.nsga2.solver import EvolvedFront, Nsga2Settings, search_front, solve_nsga2
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import canonical, encode, gene_layout, smallest_genes
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec

#: A space of 3,200 networks: small enough to list them all.
SMALL = SearchSpace(
    name="small",
    family="mobilenet",
    stem=StemSpec(8, multipliers=(0.5, 1.0)),
    stages=(StageSpec(16), StageSpec(32, stride=2, se=True, activation="hswish")),
    resolutions=(8, 12),
    depths=(1, 2),
    kernels=(3, 5),
    expands=(2.0, 3.0),
    width_multipliers=(0.5, 1.0),
)
#: ρ0 leaves about 30 % of the networks: small deep ones at all sizes fall out.
WEIGHTS = FitnessSettings(effectiveness_weight=2.0, max_effectiveness=0.78)
SETTINGS = Nsga2Settings(population=100, generations=120, seed=1)


@functools.cache
def _everything() -> list[CacheEntry]:
    sizes = gene_layout(SMALL).sizes
    vectors = np.array(list(itertools.product(*(range(size) for size in sizes))))
    entries = make_entries(SMALL, np.unique(canonical(SMALL, vectors), axis=0), WEIGHTS)
    return [entry for entry in entries if entry.rho <= WEIGHTS.max_effectiveness]


@functools.cache
def _solved(limits: Limits, entries: int = 1000) -> tuple[CacheEntry, ...]:
    return tuple(solve_nsga2(SMALL, WEIGHTS, limits, entries, SETTINGS).entries)


def _from_known(limits: Limits, known: IntArray) -> list[CacheEntry]:
    front = search_front(SMALL, WEIGHTS, limits, Nsga2Settings(population=10, generations=1), known)
    return make_entries(SMALL, front.genes, WEIGHTS)


def _optimum(limits: Limits) -> Frontier:
    """The exact frontier within limits on MACs, by brute force."""
    genes = np.stack([encode(SMALL, entry.architecture) for entry in _everything()])
    return frontier_of(SMALL, WEIGHTS, genes).within(limits.min_macs, limits.macs)


def _front(limits: Limits) -> list[tuple[int, float]]:
    """The true front within the limits, by brute force."""
    best: list[tuple[int, float]] = []
    for entry in sorted(_everything(), key=lambda entry: (entry.macs, -entry.fitness)):
        within = (limits.min_macs or 0) <= entry.macs <= (limits.macs or entry.macs)
        within &= entry.params <= (limits.params or entry.params)
        if within and (not best or entry.fitness > best[-1][1]):
            best.append((entry.macs, entry.fitness))
    return best


_CASES = [Limits(), Limits(macs=150_000), Limits(macs=250_000, min_macs=100_000), Limits(params=8_000)]


@pytest.mark.slow
@pytest.mark.parametrize("limits", _CASES, ids=str)
def test_every_entry_is_the_optimum_for_its_macs(limits: Limits) -> None:
    front = _front(limits)
    assert len(front) > 5
    assert [(entry.macs, entry.fitness) for entry in _solved(limits)] == front


@pytest.mark.slow
@pytest.mark.parametrize("limits", _CASES, ids=str)
def test_entries_are_feasible_within_limits_and_non_dominated(limits: Limits) -> None:
    entries = _solved(limits)
    for entry in entries:
        assert entry.rho <= WEIGHTS.max_effectiveness
        assert (limits.min_macs or 0) <= entry.macs <= (limits.macs or entry.macs)
        assert entry.params <= (limits.params or entry.params)
    for lower, higher in itertools.pairwise(entries):
        assert lower.macs < higher.macs
        assert lower.fitness < higher.fitness


def test_the_effectiveness_bound_excludes_networks_of_this_test() -> None:
    assert 0.2 * 3200 < len(_everything()) < 0.9 * 3200


@pytest.mark.slow
def test_fewer_entries_are_a_spread_of_the_front_with_both_ends() -> None:
    whole, few = _solved(Limits()), _solved(Limits(), entries=5)
    assert len(few) == 5
    assert set(few) <= set(whole)
    assert (few[0], few[-1]) == (whole[0], whole[-1])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_entries_and_another_seed_another_search() -> None:
    quick = [Nsga2Settings(population=20, generations=3, seed=seed) for seed in (3, 3, 4)]
    space = tiny_space()
    np.random.seed(0)
    one, same, other = (solve_nsga2(space, space.fitness, Limits(), 1000, settings).entries for settings in quick)
    assert one == same
    assert one != other


def test_progress_is_reported_after_every_generation() -> None:
    calls: list[tuple[str, int, int]] = []
    settings = Nsga2Settings(population=10, generations=4)
    search_front(SMALL, WEIGHTS, Limits(), settings, listener=ProgressListener(lambda *call: calls.append(call)))
    assert [(done, total) for _, done, total in calls] == [(n, 4) for n in (1, 2, 3, 4)]
    assert all(re.fullmatch(r"front of [1-9]\d*", what) for what, _, _ in calls)


def test_a_budget_below_the_smallest_network_names_the_smallest() -> None:
    least = int(score(SMALL, smallest_genes(SMALL)).macs[0])
    with pytest.raises(BudgetError, match=rf"at most {least - 1:,} MACs; the smallest has {least:,}"):
        solve_nsga2(SMALL, WEIGHTS, Limits(macs=least - 1), 5, SETTINGS)


def test_a_budget_only_infeasible_networks_meet_names_the_smallest_feasible_one() -> None:
    weights = FitnessSettings(max_effectiveness=0.7)
    least = int(score(SMALL, smallest_genes(SMALL)).macs[0])
    with pytest.raises(BudgetError) as caught:
        solve_nsga2(SMALL, weights, Limits(macs=least), 5, Nsga2Settings(population=40, generations=10))
    assert "ρ ≤ 0.7" in str(caught.value)
    assert "the smallest found has" in str(caught.value)


def test_a_bound_no_network_meets_is_an_error_that_says_so() -> None:
    weights = FitnessSettings(max_effectiveness=0.01)
    with pytest.raises(BudgetError, match=r"any costs and effectiveness ρ ≤ 0\.01; raise"):
        solve_nsga2(SMALL, weights, Limits(), 5, Nsga2Settings(population=10, generations=2))


@pytest.mark.parametrize("limits", _CASES, ids=str)
def test_no_known_network_is_lost_to_a_worse_one(limits: Limits) -> None:
    known = np.stack([encode(SMALL, entry.architecture) for entry in _everything()])
    entries = _from_known(limits, known)
    assert [(entry.macs, entry.fitness) for entry in entries] == _front(limits)


def test_known_networks_that_break_the_limits_or_the_bound_are_not_among_the_entries() -> None:
    sizes = gene_layout(SMALL).sizes
    known = np.stack(np.unravel_index(np.arange(0, np.prod(sizes), 7), sizes), axis=1)
    limits = Limits(macs=150_000, params=9_000)
    entries = _from_known(limits, known)
    assert max(entry.macs for entry in entries) <= 150_000
    assert max(entry.params for entry in entries) <= 9_000
    assert max(entry.rho for entry in entries) <= WEIGHTS.max_effectiveness


def test_a_search_without_known_networks_ends_with_a_local_search() -> None:
    calls: list[str] = []
    settings = Nsga2Settings(population=10, generations=1)
    listener = ProgressListener(lambda what, *_: calls.append(what))
    entries = solve_nsga2(SMALL, WEIGHTS, Limits(), 1000, settings, listener=listener).entries
    found = search_front(SMALL, WEIGHTS, Limits(), settings)
    assert calls[0].startswith("front of ")
    assert calls[-1] == f"local search, front of {len(entries)}"
    best = {entry.macs: entry.fitness for entry in entries}
    for fitness, macs in zip(-found.objectives[:, 0], found.objectives[:, 1], strict=True):
        assert max(value for cost, value in best.items() if cost <= macs) >= fitness
    assert len(entries) > len(found.genes)


@pytest.mark.parametrize("limits", [limits for limits in _CASES if limits.params is None], ids=str)
def test_a_search_from_the_optimum_ends_before_its_first_generation_with_what_a_whole_one_finds(limits: Limits) -> None:
    optimum = _optimum(limits)
    # Below the frontier's first point within the limits, other networks are optimal.
    limits = dataclasses.replace(limits, min_macs=int(optimum.macs[0]))
    calls: list[object] = []
    listener = ProgressListener(lambda *call: calls.append(call))
    solution = solve_nsga2(SMALL, WEIGHTS, limits, 1000, SETTINGS, optimum, listener)
    assert (solution.generations, calls) == (0, [])
    assert [(entry.macs, entry.fitness) for entry in solution.entries] == _front(limits)
    assert solution.entries == _from_known(limits, optimum.genes)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_from_a_part_of_the_optimum_ends_in_the_generation_that_closes_the_gap(seed: int) -> None:
    whole, settings = _optimum(Limits()), Nsga2Settings(population=100, generations=500, seed=seed)
    known = whole.genes[np.random.default_rng(seed).permutation(len(whole.genes))[: len(whole.genes) // 3]]
    found = search_front(SMALL, WEIGHTS, Limits(), settings, known, optimum=whole)
    assert 0 < found.generations < 500
    assert whole.gaps(found.objectives[:, 1], -found.objectives[:, 0]) == pytest.approx(0, abs=1e-9)
    assert found.reaches(whole)
    before = dataclasses.replace(settings, generations=found.generations - 1)
    assert found.generations == 1 or not search_front(SMALL, WEIGHTS, Limits(), before, known).reaches(whole)


def test_one_point_behind_is_a_gap_wherever_it_is() -> None:
    whole = _optimum(Limits())
    objectives = np.stack([-whole.values, whole.macs.astype(float)], axis=1)
    assert EvolvedFront(whole.genes, objectives).reaches(whole)
    assert not EvolvedFront(whole.genes[:0], objectives[:0]).reaches(whole)
    for index in range(len(whole.macs)):
        others = np.arange(len(whole.macs)) != index
        assert not EvolvedFront(whole.genes[others], objectives[others]).reaches(whole)


@pytest.mark.parametrize("fields", [{"population": 9}, {"generations": 0}, {"seed": -1}])
def test_settings_out_of_range_are_named(fields: dict[str, int]) -> None:
    (name,) = fields
    with pytest.raises(UserError, match=rf"^{name} is .*; it must be at least"):
        Nsga2Settings(**fields)


def test_starting_points_reach_from_the_smallest_to_the_largest_network() -> None:
    space = tiny_space()
    genes = ladder(space, 200, np.random.default_rng(0))
    assert genes.shape == (200, len(gene_layout(space).sizes))
    assert (genes >= 0).all()
    assert (genes < gene_layout(space).sizes).all()
    macs, ends = (
        score(space, genes).macs,
        score(space, np.stack([genes[0] * 0, gene_layout(space).sizes - 1])),
    )
    assert macs[0] == ends.macs[0]
    assert macs[-1] == ends.macs[1]
    assert np.diff(np.sort(macs)).max() < 0.2 * (ends.macs[1] - ends.macs[0])
