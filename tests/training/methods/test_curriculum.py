from typing import get_args

import numpy as np
import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, micro_entries, smallest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.genes import encode, random_genes
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.config.methods import CacheDraw
from fedpareto.training.methods.curriculum import Assigner, Curriculum
from fedpareto.training.runs.state import Counts

_BATCH = 8
_CURRICULA: tuple[Curriculum, ...] = ("pareto", "sandwich")


def _assigner(name: Curriculum = "pareto", clients: list[Capability] | None = None) -> Assigner:
    return Assigner(name, MICRO, micro_entries(), clients or [Capability()] * 6, _BATCH)


def _memory(entry: CacheEntry) -> int:
    return 4 * entry.params + _BATCH * entry.activation_bytes


def test_counts_start_at_zero_and_go_up_for_the_clients_named() -> None:
    counts = Counts.zero(3)
    assert counts == Counts((0, 0, 0), (0, 0, 0))
    assert counts.after([1], [2, 0]).after([1], []) == Counts((0, 2, 0), (1, 0, 1))
    assert counts == Counts.zero(3)


def test_the_cache_begins_with_the_smallest_network_and_ends_with_the_largest() -> None:
    entries, assigner = micro_entries(), _assigner()
    assert entries[0].architecture == smallest()
    assert entries[-1].architecture == largest()
    assert [assigner.is_smallest(entry) for entry in entries] == [True] + [False] * (len(entries) - 1)
    assert [assigner.is_largest(0, entry) for entry in entries] == [False] * (len(entries) - 1) + [True]


@pytest.mark.parametrize("name", _CURRICULA)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_those_who_had_the_smallest_and_the_largest_least_often_get_them(name: Curriculum, data: st.DataObject) -> None:
    some = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(tuple)
    counts = Counts(data.draw(some), data.draw(some))
    drawn = data.draw(st.permutations(range(6)))[: data.draw(st.integers(2, 6))]
    assigner = _assigner(name)
    assigned = dict(zip(drawn, assigner.assign(drawn, counts, np.random.default_rng(0)), strict=True))
    least = min(counts.largest[client] for client in drawn)
    (large,) = [client for client in drawn if counts.largest[client] == least][:1]
    assert assigner.is_largest(large, assigned[large])
    rest = [client for client in drawn if client != large]
    least = min(counts.smallest[client] for client in rest)
    (small,) = [client for client in rest if counts.smallest[client] == least][:1]
    assert assigner.is_smallest(assigned[small])


def test_over_many_rounds_every_client_has_the_smallest_and_the_largest_about_equally_often() -> None:
    entries = micro_entries()
    # A cache of two leaves nothing to chance: a third client would draw one of them, so two train a round.
    assigner = Assigner("pareto", MICRO, (entries[0], entries[-1]), [Capability()] * 6, _BATCH)
    generator, counts, drawn_times = np.random.default_rng(0), Counts.zero(6), np.zeros(6, dtype=int)
    for _ in range(300):
        drawn = [int(client) for client in generator.choice(6, 2, replace=False)]
        small, large = (assigner.assign(drawn, counts, generator).index(entry) for entry in (entries[0], entries[-1]))
        counts = counts.after([drawn[small]], [drawn[large]])
        drawn_times[drawn] += 1
    assert sum(counts.smallest) == sum(counts.largest) == 300
    assert max(counts.largest) - min(counts.largest) <= 3
    # Whoever is not given the largest of two is given the smallest.
    assert counts.largest == tuple(drawn_times - counts.smallest)


@pytest.mark.parametrize("name", _CURRICULA)
def test_when_all_clients_train_every_round_each_is_given_the_smallest_and_the_largest_in_turn(
    name: Curriculum,
) -> None:
    assigner, counts, generator = _assigner(name), Counts.zero(6), np.random.default_rng(0)
    for _ in range(60):
        drawn = [int(client) for client in generator.permutation(6)]
        assigned = assigner.assign(drawn, counts, generator)
        # Others may draw the smallest or the largest by chance; the turns are those with the least counts.
        large = min(drawn, key=lambda client: counts.largest[client])
        small = min((client for client in drawn if client != large), key=lambda client: counts.smallest[client])
        assert assigner.is_largest(large, assigned[drawn.index(large)])
        assert assigner.is_smallest(assigned[drawn.index(small)])
        counts = counts.after([small], [large])
        assert max(counts.largest) - min(counts.largest) <= 1
        # Whose turn it is may be taken by the largest: the smallest comes a round later then.
        assert max(counts.smallest) - min(counts.smallest) <= 2


@pytest.mark.parametrize("draw", get_args(CacheDraw))
def test_pareto_draws_all_cache_entries_evenly_or_in_inverse_proportion_to_their_macs(draw: CacheDraw) -> None:
    entries, clients = micro_entries(), [Capability()] * 6
    assigner = Assigner("pareto", MICRO, entries, clients, _BATCH, draw)
    generator = np.random.default_rng(0)
    drawn = [entry for _ in range(2000) for entry in assigner.assign(range(6), Counts.zero(6), generator)[2:]]
    assert set(drawn) == set(entries)
    weights = np.array([1.0 if draw == "uniform" else 1 / entry.macs for entry in entries])
    expected = weights / weights.sum() * len(drawn)
    times = np.array([drawn.count(entry) for entry in entries])
    assert np.abs(times - expected).max() < 5 * np.sqrt(expected.max())
    # Loose enough to hold, and the two rules are farther apart than that.
    assert entries[-1].macs > 2 * entries[0].macs


def test_sandwich_draws_from_the_space_within_the_macs_of_the_cache() -> None:
    assigner, generator, entries = _assigner("sandwich"), np.random.default_rng(0), micro_entries()
    drawn = [entry for _ in range(10) for entry in assigner.assign(range(6), Counts.zero(6), generator)[2:]]
    assert all(entries[0].macs <= entry.macs <= entries[-1].macs for entry in drawn)
    for entry in drawn:
        encode(MICRO, entry.architecture)
    assert len(set(drawn) - set(entries)) > 10


@pytest.mark.parametrize("name", _CURRICULA)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_no_client_is_given_more_than_it_can_run(name: Curriculum, data: st.DataObject) -> None:
    entries = micro_entries()
    macs = st.none() | st.integers(entries[0].macs, entries[-1].macs)
    memory = st.none() | st.integers(_memory(entries[0]), max(map(_memory, entries)))
    clients = data.draw(st.lists(st.builds(Capability, macs, memory), min_size=2, max_size=5))
    assigner = _assigner(name, clients)
    drawn = list(range(len(clients)))
    for seed in range(3):
        assigned = assigner.assign(drawn, Counts.zero(len(clients)), np.random.default_rng(seed))
        assert assigned[0] == entries[0] or assigned.count(entries[0]) > 0
        for client, entry in zip(clients, assigned, strict=True):
            assert client.macs is None or entry.macs <= client.macs
            assert client.memory is None or _memory(entry) <= client.memory


def test_random_networks_fit_the_memory_of_their_client_too() -> None:
    # Networks of the MACs of its entries may well need more memory than those.
    limit = _memory(micro_entries()[2])
    assigner, generator = _assigner("sandwich", [Capability(memory=limit)] * 6), np.random.default_rng(0)
    drawn = [entry for _ in range(15) for entry in assigner.assign(range(6), Counts.zero(6), generator)]
    assert max(map(_memory, drawn)) <= limit
    assert len(set(drawn)) > 4


def test_among_weak_clients_the_ablest_takes_the_place_of_the_largest() -> None:
    entries = micro_entries()
    clients = [Capability(macs=entries[position].macs) for position in (0, 1, 2, 3, 2)]
    assigner = _assigner("pareto", clients)
    assigned = assigner.assign([0, 1, 2, 3, 4], Counts.zero(5), np.random.default_rng(0))
    assert assigned[0] == entries[0]
    assert assigned[3] == entries[3]
    # Whoever is ablest among the drawn: here the two of the third entry, the one with fewer turns.
    counts = Counts((0,) * 5, (0, 0, 1, 0, 0))
    assigned = assigner.assign([0, 2, 4], counts, np.random.default_rng(0))
    assert assigned[2] == entries[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", _CURRICULA)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_the_ablest_client_of_every_round_trains_the_largest_network_it_can_run(
    name: Curriculum, data: st.DataObject
) -> None:
    entries = micro_entries()
    reaches = data.draw(st.lists(st.integers(0, len(entries) - 1), min_size=2, max_size=7))
    assigner = _assigner(name, [Capability(macs=entries[reach].macs) for reach in reaches])
    generator, counts = np.random.default_rng(0), Counts.zero(len(reaches))
    for _ in range(3 * len(reaches)):
        size = data.draw(st.integers(2, len(reaches)))
        drawn = [int(client) for client in generator.choice(len(reaches), size, replace=False)]
        assigned = dict(zip(drawn, assigner.assign(drawn, counts, generator), strict=True))
        top = max(reaches[client] for client in drawn)
        ablest = [client for client in drawn if reaches[client] == top]
        # Of equally able clients the one that has had it least often, whatever the smallest network would want.
        chosen = min(ablest, key=lambda client: counts.largest[client])
        assert assigned[chosen] == entries[top]
        assert entries[0] in [entry for client, entry in assigned.items() if client != chosen]
        counts = counts.after(
            [client for client, entry in assigned.items() if assigner.is_smallest(entry)],
            [client for client, entry in assigned.items() if assigner.is_largest(client, entry)],
        )


def test_equally_weak_clients_have_the_largest_they_can_run_in_turn() -> None:
    entries = micro_entries()
    # None of them ever has the cache's largest: turns must be counted all the same.
    assigner = _assigner("pareto", [Capability(macs=entries[2].macs)] * 4 + [Capability()])
    counts = Counts.zero(5)
    for _ in range(20):
        assigned = assigner.assign([0, 1, 2, 3], counts, np.random.default_rng(0))
        chosen = min(range(4), key=lambda client: counts.largest[client])
        assert assigned[chosen] == entries[2]
        counts = counts.after([], [chosen])
        assert max(counts.largest[:4]) - min(counts.largest[:4]) <= 1
    assert [assigner.is_largest(0, entry) for entry in entries] == [index == 2 for index in range(len(entries))]


def test_a_single_client_draws_freely() -> None:
    generator, assigner = np.random.default_rng(0), _assigner()
    drawn = {assigner.assign([2], Counts.zero(6), generator)[0] for _ in range(100)}
    assert drawn == set(micro_entries())


@pytest.mark.parametrize("name", _CURRICULA)
def test_the_draw_is_the_generators(name: Curriculum) -> None:
    assigner = _assigner(name)
    first, again, other = (assigner.assign(range(6), Counts.zero(6), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_client_too_weak_for_the_smallest_entry_is_an_error_that_names_it() -> None:
    least = micro_entries()[0]
    with pytest.raises(
        UserError, match=r"client 1 can run 40K MACs, less than the smallest cache entry \(40,416 MACs\)"
    ):
        _assigner("pareto", [Capability(), Capability(macs=40_000)])
    with pytest.raises(UserError, match=r"client 2 can run .* raise its limit"):
        _assigner("pareto", [Capability(), Capability(memory=_memory(least)), Capability(memory=_memory(least) - 1)])


def test_under_sandwich_a_client_that_runs_only_the_smallest_entry_is_given_what_it_can_run() -> None:
    space = load_space("mobilenet-tiny")
    # A cache that begins above the smallest network of the space: hardly any other has just those MACs.
    entries = make_entries(space, random_genes(space, 3, np.random.default_rng(0)), space.fitness)
    weak = Capability(macs=entries[0].macs)
    assigner = Assigner("sandwich", space, entries, [weak, Capability(), weak], _BATCH)
    assigned = assigner.assign([0, 1, 2], Counts.zero(3), np.random.default_rng(0))
    assert assigned[2].macs == entries[0].macs
