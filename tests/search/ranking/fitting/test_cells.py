import numpy as np
import pytest
from helpers.networks.strategies import preset, runs, spaces_with_genes, tiny_space
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.learned import learned_sum
from fedpareto.search.ranking.fitting.cells import cells_chosen, cells_of, effects_of, terms_of_cells
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import canonical, decode, random_genes
from fedpareto.supernet.learned import check_learned
from fedpareto.supernet.space import SearchSpace


@given(spaces_with_genes(), st.integers(0, 100))
@runs(100)
def test_cells_chosen_times_their_worth_is_what_the_terms_add(drawn: tuple[SearchSpace, IntArray], seed: int) -> None:
    space, genes = drawn
    worth = np.random.default_rng(seed).normal(size=len(cells_of(space)))
    terms = terms_of_cells(space, 2.5, worth)
    check_learned(terms, space)
    added = learned_sum(space, canonical(space, genes).T, terms)[0]
    assert (cells_chosen(space, genes[None]) @ worth)[0] + 2.5 == pytest.approx(added, abs=1e-9)


def test_a_network_has_one_cell_for_each_choice_it_makes() -> None:
    space = preset("mobilenet-cifar")
    genes = random_genes(space, 200, np.random.default_rng(0))
    chosen, cells = cells_chosen(space, genes), cells_of(space)
    assert chosen.shape == (200, len(cells))
    assert len(set(cells)) == len(cells)
    for name, count in (("resolution", 1), ("stem", 1), ("width", 5), ("depth", 5)):
        of_kind = [index for index, cell in enumerate(cells) if cell[0] == name]
        assert set(chosen[:, of_kind].sum(axis=1)) == {count}
    blocks = chosen[:, [index for index, cell in enumerate(cells) if cell[0] == "block"]].sum(axis=1)
    assert blocks.tolist() == [sum(len(stage.blocks) for stage in decode(space, vector).stages) for vector in genes]


def test_cells_that_share_a_choice_share_an_effect() -> None:
    space = tiny_space()
    cells = cells_of(space)
    shared = effects_of(cells) @ effects_of(cells).T

    def alike(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> float:
        return float(shared[cells.index(one), cells.index(other)])

    here = ("block", 0, 0, 0, 0)
    assert alike(here, here) == 7
    # The same kernel in the same slot, in the same stage, anywhere; and nothing.
    assert alike(here, ("block", 0, 0, 0, 1)) == 3
    assert alike(here, ("block", 0, 1, 0, 1)) == 2
    assert alike(here, ("block", 1, 0, 0, 1)) == 1
    assert alike(here, ("block", 1, 0, 1, 1)) == 0
    assert alike(here, ("width", 0, 0)) == 0
