import dataclasses
import itertools

import numpy as np
import pytest
from helpers.networks.spaces import SMALL, SMALL_RESNET, VAST, listed
from helpers.networks.strategies import narrow_resnet, preset, tiny_space
from helpers.runs.federation import micro_space

from fedpareto.cache.build import Solver, SolverSettings, compute_cache
from fedpareto.cache.cache_file import Cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.cache.nsga2.solver import Nsga2Settings, solve_nsga2
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace

QUICK = Nsga2Settings(population=20, generations=3, seed=5)
SOLVERS: tuple[Solver, ...] = ("nsga2", "exact")


def _build(
    space: SearchSpace, solver: Solver = "nsga2", limits: Limits | None = None, entries: int = 20, *, cold: bool = False
) -> Cache:
    return compute_cache(space, space.fitness, limits or Limits(), entries, SolverSettings(solver, cold, QUICK))


def _optima(space: SearchSpace, cache: Cache) -> list[float]:
    """Return the highest fitness at the MACs of each entry, by looking at every network."""
    everything = listed(space, cache.fitness.for_cache())
    return [everything.best(Limits(macs=entry.macs)) for entry in cache.entries]


@pytest.mark.slow
def test_a_cold_cache_holds_the_solvers_entries_and_how_they_were_found() -> None:
    space, limits = tiny_space(), Limits(macs=2_000_000)
    cache = _build(space, limits=limits, entries=6, cold=True)
    assert list(cache.entries) == solve_nsga2(space, space.fitness, limits, 6, QUICK).entries
    assert cache.fitness == space.fitness
    assert cache.solver == "nsga2"
    assert cache.solver_settings == {
        "population": 20,
        "generations": 3,
        "seed": 5,
        "cold": True,
        "generations_run": 3,
        "ended_by": "generations",
        "limits": {"macs": 2_000_000, "min_macs": None},
        "entries": 6,
    }


def test_an_exact_cache_says_that_it_is_one() -> None:
    cache = _build(tiny_space(), "exact", Limits(min_macs=300_000), 6)
    assert cache.solver == "exact"
    assert cache.solver_settings == {"limits": {"macs": None, "min_macs": 300_000}, "entries": 6}


def test_the_method_is_a_warm_search_unless_told_otherwise() -> None:
    assert SolverSettings() == SolverSettings("nsga2", cold=False, nsga2=Nsga2Settings())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("space", [SMALL, SMALL_RESNET], ids=lambda space: space.name)
def test_every_entry_is_the_optimum_of_all_networks_at_its_macs(space: SearchSpace, solver: Solver) -> None:
    cache = _build(space, solver)
    assert len(cache.entries) == 20
    assert [entry.fitness for entry in cache.entries] == pytest.approx(_optima(space, cache), rel=1e-12)
    assert cache.gaps == pytest.approx([0.0] * 20, abs=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_entries_of_a_preset_are_points_of_its_frontier(solver: Solver) -> None:
    space = preset("mobilenet-cifar")
    cache = _build(space, solver, entries=60)
    frontier = load_or_compute_frontier(space, space.fitness)
    assert len(cache.entries) == 60
    assert {entry.macs for entry in cache.entries} <= set(frontier.macs.tolist())
    for entry in cache.entries:
        index = frontier.best_within(entry.macs)
        assert index is not None
        assert entry.fitness == pytest.approx(float(frontier.values[index]), rel=1e-12)
    assert cache.gaps == pytest.approx([0.0] * 60, abs=1e-9)
    assert (cache.entries[0].macs, cache.entries[-1].macs) == (frontier.macs[0], frontier.macs[-1])


@pytest.mark.slow
@pytest.mark.parametrize("space", [tiny_space(), narrow_resnet()], ids=lambda space: space.name)
@pytest.mark.parametrize(("population", "generations"), [(20, 5), (60, 30)])
def test_a_cold_search_comes_within_a_hundredth_of_the_optimum_everywhere(
    space: SearchSpace, population: int, generations: int
) -> None:
    method = SolverSettings(cold=True, nsga2=Nsga2Settings(population, generations))
    cache = compute_cache(space, space.fitness, Limits(), 60, method)
    frontier = load_or_compute_frontier(space, space.fitness.for_cache())
    best = np.array([frontier.values[frontier.macs <= entry.macs].max() for entry in cache.entries])
    found = np.array([entry.fitness for entry in cache.entries])
    assert len(found) == 60
    assert cache.gaps == pytest.approx(np.maximum(0, best - found), abs=1e-9)
    assert (found >= 0.99 * best).all()
    assert (found <= best * (1 + 1e-9)).all()


@pytest.mark.parametrize("limits", [Limits(), Limits(macs=150_000), Limits(min_macs=100_000)], ids=str)
@pytest.mark.parametrize("space", [SMALL, SMALL_RESNET, tiny_space(), micro_space()], ids=lambda space: space.name)
def test_a_search_whose_start_is_the_optimum_ends_at_once_with_the_exact_entries(
    space: SearchSpace, limits: Limits
) -> None:
    if limits != Limits():
        frontier = load_or_compute_frontier(space, space.fitness.for_cache())
        middle = int(frontier.macs[len(frontier.macs) // 2])
        limits = Limits(macs=middle) if limits.macs else Limits(min_macs=middle)
    cache, exact = _build(space, "nsga2", limits), _build(space, "exact", limits)
    assert cache.entries == exact.entries
    assert cache.solver == "nsga2"
    assert cache.solver_settings["generations_run"] == 0
    assert cache.solver_settings["ended_by"] == "gap to the exact frontier is zero"
    assert cache.solver_settings["generations"] == QUICK.generations


@pytest.mark.slow
def test_a_search_that_stays_behind_alone_does_not_from_the_frontier() -> None:
    # Local search alone misses one point here.
    space, hardly = narrow_resnet(), Nsga2Settings(10, 1)
    cold, warm = (
        compute_cache(space, space.fitness, Limits(), 60, SolverSettings(cold=cold, nsga2=hardly)).gaps
        for cold in (True, False)
    )
    assert cold is not None
    assert min(cold) >= 0
    assert max(cold) > 1e-3
    assert warm == pytest.approx([0.0] * 60, abs=1e-9)


@pytest.mark.parametrize(("solver", "cold"), [("nsga2", False), ("nsga2", True), ("exact", False)])
@pytest.mark.parametrize(
    "limits", [Limits(macs=2_000_000), Limits(min_macs=1_500_000), Limits(macs=2_000_000, min_macs=1_000_000)]
)
def test_limits_hold_for_every_entry(solver: Solver, cold: bool, limits: Limits) -> None:
    cache = _build(tiny_space(), solver, limits, cold=cold)
    macs = [entry.macs for entry in cache.entries]
    assert len(macs) == 20
    assert (limits.min_macs or 0) <= macs[0]
    assert macs[-1] <= (limits.macs or np.inf)
    for lower, higher in itertools.pairwise(cache.entries):
        assert lower.macs < higher.macs
        assert lower.fitness < higher.fitness


def test_a_warm_cache_of_a_range_is_optimal_too() -> None:
    space = preset("mobilenet-cifar")
    macs = load_or_compute_frontier(space, space.fitness).macs
    for point in (len(macs) // 4, len(macs) // 2):
        cache = _build(space, limits=Limits(min_macs=int(macs[point]) + 1))
        assert cache.gaps == pytest.approx([0.0] * 20, abs=1e-9)


@pytest.mark.parametrize("cold", [False, True])
def test_a_space_of_one_network_has_a_cache_of_it(cold: bool) -> None:
    rigid = micro_space(name="rigid", depths=(1,), kernels=(3,), expands=(2,), width_multipliers=(1.0,))
    cache = _build(rigid, cold=cold)
    assert len(cache.entries) == 1
    assert cache.gaps == (0.0,)


def test_a_range_without_a_point_of_the_frontier_is_refused() -> None:
    macs = load_or_compute_frontier(tiny_space(), tiny_space().fitness).macs
    widest = int(np.argmax(np.diff(macs)))
    limits = Limits(min_macs=int(macs[widest]) + 1, macs=int(macs[widest + 1]) - 1)
    with pytest.raises(BudgetError, match=r"no best network of mobilenet-tiny has at most .* and at least .*; widen"):
        _build(tiny_space(), "exact", limits)


def test_entries_of_a_cache_keep_to_its_own_bound_and_the_search_to_the_other() -> None:
    bound = float(np.quantile(listed(SMALL).scores.rho, 0.3))
    weights = FitnessSettings(max_effectiveness=0.95, cache_max_effectiveness=bound)
    space = dataclasses.replace(SMALL, fitness=weights)
    loose = max(entry.rho for entry in _build(dataclasses.replace(SMALL, fitness=FitnessSettings())).entries)
    for solver in SOLVERS:
        cache = _build(space, solver)
        assert max(entry.rho for entry in cache.entries) <= bound * (1 + 1e-9) < loose
        assert cache.fitness == weights
        assert [entry.fitness for entry in cache.entries] == pytest.approx(_optima(space, cache), rel=1e-12)


def test_a_resnet_cache_keeps_to_the_bound_of_its_preset() -> None:
    space = narrow_resnet()
    bound = space.fitness.cache_max_effectiveness
    assert bound is not None
    assert bound < space.fitness.max_effectiveness
    cache = _build(space, "exact", entries=60)
    assert max(entry.rho for entry in cache.entries) <= bound
    assert cache.fitness.max_effectiveness == space.fitness.max_effectiveness


def test_a_space_too_large_for_the_exact_solver_is_searched_cold_with_a_remark() -> None:
    remarks: list[str] = []
    cache = compute_cache(
        VAST, VAST.fitness, Limits(), 5, SolverSettings(nsga2=QUICK), ProgressListener(remark=remarks.append)
    )
    assert cache.gaps is None
    assert cache.solver == "nsga2"
    assert len(cache.entries) == 5
    (remark,) = remarks
    assert remark.startswith("vast is too large to be solved exactly within ")
    assert "NSGA-II starts cold" in remark


def test_a_space_too_large_for_the_exact_solver_is_an_error_where_that_was_asked_for() -> None:
    with pytest.raises(SpaceTooLargeError, match=r"^vast is too large .*; use --solver nsga2, or fewer choices$"):
        _build(VAST, "exact")


def test_a_cold_exact_method_is_refused() -> None:
    with pytest.raises(UserError, match="leave out --cold, or choose --solver nsga2"):
        SolverSettings("exact", cold=True)


@pytest.mark.parametrize("entries", [1, 0, -4])
def test_a_cache_of_less_than_two_entries_is_refused(entries: int) -> None:
    with pytest.raises(BudgetError, match=rf"a cache of {counted(entries, 'entry')} is too small; ask for at least 2"):
        _build(tiny_space(), entries=entries)


def test_progress_is_reported_while_a_frontier_is_solved_and_a_search_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path_factory.mktemp("kept")))
    calls: list[tuple[str, int, int]] = []
    listener = ProgressListener(lambda *call: calls.append(call))
    compute_cache(SMALL, SMALL.fitness, Limits(), 5, SolverSettings(cold=True, nsga2=QUICK), listener)
    kinds = [what.split(",")[0].split(" of ")[0] for what, _, _ in calls]
    assert list(dict.fromkeys(kinds)) == ["solving", "front", "local search"]
    for _, steps in itertools.groupby(calls, key=lambda call: call[0].split(",")[0].split(" of ")[0]):
        done = [(step, total) for _, step, total in steps]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]
