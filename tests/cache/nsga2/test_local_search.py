import numpy as np
import pytest
from helpers.networks.spaces import SMALL, SMALL_RESNET
from helpers.networks.strategies import preset
from helpers.runs.federation import micro_space

from fedpareto.cache.nsga2.local_search import neighbours, trades
from fedpareto.supernet.genes import gene_layout, random_genes
from fedpareto.supernet.space import SearchSpace

SPACES = (SMALL, SMALL_RESNET, preset("mobilenet-tiny"))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_moves_are_steps_and_trades_of_free_genes(space: SearchSpace) -> None:
    moves, sizes = trades(space), gene_layout(space).sizes
    assert len(np.unique(moves, axis=0)) == len(moves)
    assert moves.any(axis=1).all()
    assert set(np.unique(moves)) == {-1, 0, 1}
    assert not moves[:, sizes == 1].any()
    # What goes up in one move goes down in another.
    assert {move.tobytes() for move in moves} == {move.tobytes() for move in -moves}


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_every_gene_can_step_and_be_traded_for_every_other(space: SearchSpace) -> None:
    moves = {tuple(move) for move in trades(space).tolist()}
    sizes = gene_layout(space).sizes
    unit = np.eye(len(sizes), dtype=np.int64)
    free = np.flatnonzero(sizes > 1)
    for up in free:
        assert tuple(unit[up].tolist()) in moves
        assert tuple((-unit[up]).tolist()) in moves
        for down in set(free) - {up}:
            assert tuple((unit[up] - unit[down]).tolist()) in moves


def test_all_kernels_and_all_expands_of_a_stage_move_together() -> None:
    layout = gene_layout(SMALL)
    moves = {tuple(move) for move in trades(SMALL).tolist()}
    for group in (*layout.kernel, *layout.expand):
        step = np.zeros(len(layout.sizes), dtype=np.int64)
        step[group] = 1
        assert tuple(step.tolist()) in moves


def test_neighbours_are_one_move_away_and_inside_the_space() -> None:
    genes, moves = random_genes(SMALL, 20, np.random.default_rng(0)), trades(SMALL)
    found = neighbours(SMALL, genes, moves).reshape(20, len(moves), -1)
    sizes = gene_layout(SMALL).sizes
    assert ((found >= 0) & (found < sizes)).all()
    for vector, near in zip(genes, found, strict=True):
        for move, neighbour in zip(moves, near, strict=True):
            expected = [min(max(g + m, 0), size - 1) for g, m, size in zip(vector, move, sizes, strict=True)]
            assert neighbour.tolist() == expected


def test_a_space_of_one_network_has_no_moves() -> None:
    rigid = micro_space(depths=(1,), kernels=(3,), expands=(2,), width_multipliers=(1.0,))
    assert len(trades(rigid)) == 0
