import numpy as np
from helpers.networks.strategies import runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.cache.entries import evenly_spaced, make_entries
from fedpareto.fitness.score import score
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import decode, encode_all, gene_layout, random_genes

_fronts = st.lists(st.integers(1, 10_000), min_size=2, max_size=60, unique=True).map(
    lambda macs: np.array(sorted(macs))
)


def test_entries_are_scored_architectures_by_ascending_macs() -> None:
    space, weights = tiny_space(), FitnessSettings(effectiveness_weight=5.0)
    genes = random_genes(space, 30, np.random.default_rng(0))
    entries = make_entries(space, genes, weights)
    assert [entry.macs for entry in entries] == sorted(entry.macs for entry in entries)
    assert {entry.architecture for entry in entries} == {decode(space, vector) for vector in genes}
    scores = score(space, encode_all(space, [entry.architecture for entry in entries]), weights)
    for name in ("macs", "params", "activation_bytes", "fitness", "rho"):
        assert [getattr(entry, name) for entry in entries] == getattr(scores, name).tolist()


def test_no_genes_are_no_entries() -> None:
    genes = np.empty((0, len(gene_layout(tiny_space()).sizes)), dtype=np.int64)
    assert make_entries(tiny_space(), genes, FitnessSettings()) == []


@given(_fronts, st.integers(2, 40))
@runs(150)
def test_a_spread_has_as_many_points_as_asked_and_both_ends(macs: NDArray[np.int64], count: int) -> None:
    chosen = evenly_spaced(macs, count)
    assert len(chosen) == min(count, len(macs))
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert (chosen[0], chosen[-1]) == (0, len(macs) - 1)


def test_a_spread_is_even_over_the_macs_not_over_the_points() -> None:
    macs = np.array([0, 1, 2, 3, 4, 5, 6, 50, 100])
    assert evenly_spaced(macs, 3).tolist() == [0, 7, 8]


def test_a_budget_is_served_by_the_last_point_within_it() -> None:
    macs = np.array([0, 30, 49, 51, 100])
    assert evenly_spaced(macs, 3).tolist() == [0, 2, 4]


def test_budgets_that_share_a_point_leave_their_room_to_the_widest_gap() -> None:
    macs = np.array([0, 1, 2, 3, 90, 97, 100])
    assert evenly_spaced(macs, 4).tolist() == [0, 3, 4, 6]
