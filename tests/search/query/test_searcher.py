import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.latency import random_times, write_table
from helpers.networks.spaces import SHARED_RATIOS, SMALL, SMALL_RESNET, VAST, listed
from helpers.networks.strategies import preset

from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.search.query.searcher import Answer, search, search_cheapest
from fedpareto.supernet.architecture import architecture_from_text
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace

SPACES = (SMALL, SMALL_RESNET, SHARED_RATIOS)
_IDS = tuple(space.name for space in SPACES)
_COSTS = ("macs", "params", "latency")
_KINDS = [kinds for count in (1, 2, 3) for kinds in itertools.combinations(_COSTS, count)]
_SHARES = (0.03, 0.2, 0.5, 0.9)

#: Times are sums of fractions: a limit just above one does not hang on the order they are added in.
_ABOVE = 1 + 1e-9


def _latency_limits(space: SearchSpace, folder: Path, limit: float, seed: int = 0) -> Limits:
    table = write_table(folder / f"{space.name}.json", random_times(space, seed))
    return Limits(extras=(read_latency(table, space, limit),))


def _limits(space: SearchSpace, folder: Path, kinds: tuple[str, ...], share: float) -> Limits:
    """Return limits on the given costs, each met by a share of all networks."""
    everything = listed(space)
    macs, params = (int(np.quantile(column, share)) for column in (everything.scores.macs, everything.scores.params))
    free = _latency_limits(space, folder, np.inf)
    latency = _ABOVE * float(np.quantile(free.extras[0].of(space, everything.genes), share))
    return Limits(
        macs=macs if "macs" in kinds else None,
        params=params if "params" in kinds else None,
        extras=(dataclasses.replace(free.extras[0], limit=latency),) if "latency" in kinds else (),
    )


def _check_within(space: SearchSpace, entry: CacheEntry, limits: Limits) -> None:
    assert entry.macs <= (limits.macs or np.inf)
    assert entry.params <= (limits.params or np.inf)
    for extra in limits.extras:
        assert extra.of(space, encode(space, entry.architecture)[None])[0] <= extra.limit
    assert entry.rho <= space.fitness.max_effectiveness * (1 + 1e-9)


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
@pytest.mark.parametrize("kinds", _KINDS, ids="+".join)
def test_the_answer_is_the_best_of_all_networks_within_the_limits(
    space: SearchSpace, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    found = 0
    for share in _SHARES:
        limits = _limits(space, tmp_path, kinds, share)
        within = listed(space).within(limits)
        if not within.any():
            with pytest.raises(BudgetError):
                search(space, space.fitness, limits)
            continue
        found += 1
        answer = search(space, space.fitness, limits)
        assert answer.certified
        assert answer.solver == "exact"
        assert answer.entry.fitness == pytest.approx(listed(space).best(limits), rel=1e-12)
        _check_within(space, answer.entry, limits)
    assert found >= 3


@pytest.mark.slow
def test_the_time_of_an_answer_is_a_limit_it_meets(tmp_path: Path) -> None:
    for space, seed in itertools.product(SPACES, range(3)):
        cost = _latency_limits(space, tmp_path, np.inf, seed).extras[0]
        times = cost.of(space, listed(space).genes)
        for share in (0.2, 0.4, 0.6):
            limit = _ABOVE * float(np.quantile(times, share))
            answer = search(space, space.fitness, Limits(extras=(dataclasses.replace(cost, limit=limit),))).entry
            own = float(cost.of(space, encode(space, answer.architecture)[None])[0])
            limits = Limits(extras=(dataclasses.replace(cost, limit=own),))
            assert search(space, space.fitness, limits).entry.fitness == answer.fitness


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_other_latency_tables_and_weights_change_nothing_about_that(
    space: SearchSpace, seed: int, tmp_path: Path
) -> None:
    weights = dataclasses.replace(
        space.fitness,
        entropy=("stage", "prefix")[seed % 2],
        effectiveness_weight=(300.0, 0.0, -50.0, 1000.0)[seed],
    )
    free = _latency_limits(space, tmp_path, np.inf, seed)
    times = free.extras[0].of(space, listed(space).genes)
    limits = Limits(
        macs=int(np.quantile(listed(space).scores.macs, 0.6)),
        extras=(dataclasses.replace(free.extras[0], limit=_ABOVE * float(np.quantile(times, 0.2))),),
    )
    answer = search(space, weights, limits)
    assert answer.entry.fitness == pytest.approx(listed(space, weights).best(limits), rel=1e-12)
    _check_within(space, answer.entry, limits)


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_the_next_better_network_is_the_cheapest_of_those_with_a_higher_fitness(space: SearchSpace) -> None:
    everything = listed(space)
    scores = everything.scores
    for share in _SHARES:
        entry, better = _answer(search(space, space.fitness, Limits(macs=int(np.quantile(scores.macs, share)))))
        assert better is not None
        above = scores.feasible & (scores.fitness > entry.fitness * (1 + 1e-10))
        assert better.macs == scores.macs[above].min()
        assert better.fitness == pytest.approx(scores.fitness[above & (scores.macs == better.macs)].max(), rel=1e-12)


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_no_network_is_better_than_the_best_of_the_space(space: SearchSpace) -> None:
    entry, better = _answer(search(space, space.fitness, Limits(macs=10**12)))
    assert entry.fitness == pytest.approx(listed(space).best(Limits()), rel=1e-12)
    assert better is None


def _answer(answer: Answer) -> tuple[CacheEntry, CacheEntry | None]:
    return answer.entry, answer.next_better


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_the_cheapest_network_of_a_fitness_is_that_of_all_networks(space: SearchSpace, tmp_path: Path) -> None:
    scores = listed(space).scores
    latency = _limits(space, tmp_path, ("latency",), 0.4)
    params = _limits(space, tmp_path, ("params",), 0.4)
    both = dataclasses.replace(latency, params=params.params)
    given = (Limits(), Limits(macs=10**12), latency, params, both)
    for limits, share in itertools.product(given, (0.1, 0.5, 0.99, 1.0)):
        within = listed(space).within(limits)
        least = float(np.quantile(scores.fitness[within], share)) * (1 - 1e-12)
        answer = search_cheapest(space, space.fitness, least, limits)
        assert answer.certified
        assert answer.entry.macs == scores.macs[within & (scores.fitness >= least)].min()
        assert answer.entry.fitness >= least
        _check_within(space, answer.entry, limits)


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_a_fitness_no_network_has_names_the_highest(space: SearchSpace, tmp_path: Path) -> None:
    highest = listed(space).best(Limits())
    with pytest.raises(
        BudgetError, match=rf"^no network of {space.name} has a fitness of .*; the highest is"
    ) as caught:
        search_cheapest(space, space.fitness, highest + 0.1, Limits())
    assert str(caught.value).endswith(f"{highest:.1f}")
    limits = _limits(space, tmp_path, ("latency",), 0.2)
    with pytest.raises(BudgetError, match=r" with at most .* ms latency has a fitness of .*; the highest is") as caught:
        search_cheapest(space, space.fitness, highest, limits)
    assert str(caught.value).endswith(f"{listed(space).best(limits):.1f}")


def test_a_fitness_beyond_the_macs_allowed_names_both_and_the_nearest_network() -> None:
    scores = listed(SMALL).scores
    budget, least = int(np.quantile(scores.macs, 0.3)), float(np.quantile(scores.fitness, 0.99))
    cheapest = scores.macs[scores.feasible & (scores.fitness >= least)].min()
    assert cheapest > budget
    with pytest.raises(BudgetError) as caught:
        search_cheapest(SMALL, SMALL.fitness, least, Limits(macs=budget))
    message = str(caught.value)
    assert f"fitness {least:g} takes at least {cheapest:,} MACs" in message
    assert f"more than the {budget:,} allowed" in message
    assert f"the highest is {listed(SMALL).best(Limits(macs=budget)):.1f}" in message
    nearest = architecture_from_text(message[message.index("{") :], "message")
    (entry,) = make_entries(SMALL, encode(SMALL, nearest)[None], SMALL.fitness)
    assert entry.macs == cheapest
    assert entry.fitness >= least


@pytest.mark.parametrize("space", SPACES, ids=_IDS)
def test_limits_that_contradict_each_other_name_one_and_the_nearest_network(space: SearchSpace, tmp_path: Path) -> None:
    everything = listed(space)
    # The fastest network is not the smallest one: its time and fewer MACs exclude each other.
    cost = _latency_limits(space, tmp_path, np.inf).extras[0]
    times = cost.of(space, everything.genes)
    feasible = everything.scores.feasible
    fastest = _ABOVE * float(times[feasible].min())
    macs = int(everything.scores.macs[feasible & (times <= fastest)].min()) - 1
    limits = Limits(macs=macs, extras=(dataclasses.replace(cost, limit=fastest),))
    assert not everything.within(limits).any()
    with pytest.raises(BudgetError) as caught:
        search(space, space.fitness, limits)
    message = str(caught.value)
    assert "\n" not in message
    needed_macs = everything.scores.macs[feasible & (times <= fastest)].min()
    needed_time = times[feasible & (everything.scores.macs <= macs)].min()
    binds = "MACs" if needed_macs / macs <= needed_time / fastest else "latency"
    assert f"; the limit on {binds} binds: the nearest network has " in message
    amount = f"{needed_macs:,}" if binds == "MACs" else f"{needed_time:.6g} ms"
    assert f"the nearest network has {amount}" in message
    nearest = encode(space, architecture_from_text(message[message.index("{") :], "message"))[None]
    (entry,) = make_entries(space, nearest, space.fitness)
    if binds == "MACs":
        assert (entry.macs, cost.of(space, nearest)[0] <= fastest) == (needed_macs, True)
    else:
        assert entry.macs <= macs
        assert cost.of(space, nearest)[0] == pytest.approx(needed_time)


def test_a_bound_no_network_meets_says_so() -> None:
    weights = FitnessSettings(max_effectiveness=0.01)
    with pytest.raises(BudgetError, match=r"ρ ≤ 0\.01, whatever its costs; raise max_effectiveness"):
        search(SMALL, weights, Limits(macs=100_000))


def test_a_budget_below_every_network_names_the_smallest() -> None:
    least = int(listed(SMALL).scores.macs.min())
    with pytest.raises(BudgetError, match=rf"at most {least - 1:,} MACs; the smallest has {least:,}"):
        search(SMALL, SMALL.fitness, Limits(macs=least - 1))


def test_a_preset_is_answered_from_its_frontier_within_any_budget() -> None:
    space = preset("mobilenet-cifar")
    frontier = load_or_compute_frontier(space, space.fitness)
    for budget in (14_000_000, 60_000_000, int(frontier.macs[700]), int(frontier.macs[700]) - 1):
        entry, better = _answer(search(space, space.fitness, Limits(macs=budget)))
        index = int(np.flatnonzero(frontier.macs <= budget)[-1])
        assert entry.macs == frontier.macs[index]
        assert entry.fitness == pytest.approx(float(frontier.values[index]), rel=1e-12)
        assert better is not None
        assert better.macs == frontier.macs[index + 1] > budget


def test_parameters_that_bind_give_a_network_off_the_frontier_of_a_preset() -> None:
    space = preset("mobilenet-cifar")
    free = search(space, space.fitness, Limits(macs=60_000_000)).entry
    limits = Limits(macs=60_000_000, params=free.params - 1)
    bound = search(space, space.fitness, limits)
    assert bound.certified
    _check_within(space, bound.entry, limits)
    assert bound.entry.fitness < free.fitness


@pytest.mark.slow
def test_a_space_too_large_is_searched_without_a_certificate_and_with_a_remark() -> None:
    remarks: list[str] = []
    limits = Limits(macs=10_000_000_000)
    answer = search(VAST, VAST.fitness, limits, listener=ProgressListener(remark=remarks.append))
    assert not answer.certified
    assert answer.solver == "nsga2"
    assert answer.next_better is None
    assert answer.entry.macs <= 10_000_000_000
    (remark,) = remarks
    assert re.match(r"vast is too large to be solved exactly .*; searching with NSGA-II, without a certificate", remark)


@pytest.mark.slow
def test_known_entries_help_a_search_without_a_certificate() -> None:
    limits = Limits(macs=10_000_000_000)
    strong = search(VAST, VAST.fitness, limits, seed=3).entry
    again = search(VAST, VAST.fitness, limits, [strong], seed=4).entry
    assert again.fitness >= strong.fitness


def test_the_least_fitness_of_a_space_too_large_is_refused() -> None:
    with pytest.raises(SpaceTooLargeError, match=r"; search for the highest fitness within a budget instead$"):
        search_cheapest(VAST, VAST.fitness, 100.0, Limits())
