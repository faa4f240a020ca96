import math

import numpy as np
import pytest
from helpers.networks.exhaustive import all_genes, small_spaces
from helpers.networks.reference import convolutions, macs_and_params, peak_activation_bytes
from helpers.networks.strategies import PRESETS, preset, runs, spaces_with_architectures, tiny_space, user_spaces
from hypothesis import given

from fedpareto.fitness.costs import macs
from fedpareto.fitness.part_tables import FitnessTerms, NetworkPart, Parts, space_parts, space_terms, tabulate
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import encode, gene_layout, random_genes
from fedpareto.supernet.layer_table import layer_table
from fedpareto.supernet.space import SearchSpace


def _chosen(space: SearchSpace, genes: IntArray) -> list[tuple[FitnessTerms, int]]:
    """The terms of every part that one network has, and which choice of it."""
    parts, terms, layout = space_parts(space), space_terms(space), gene_layout(space)
    columns = genes[:, None]
    found = [(terms.stem, int(parts.stem.index(columns)[0]))]
    for s, slots in enumerate(parts.blocks):
        depth = space.depths[genes[layout.depth[s]]]
        found += [(terms.blocks[s][b], int(slots[b].index(columns)[0])) for b in range(depth)]
    return [*found, (terms.head, int(parts.head.index(columns)[0]))]


def _all_parts(parts: Parts[NetworkPart]) -> list[NetworkPart]:
    return [parts.stem, *(part for slots in parts.blocks for part in slots), parts.head]


@given(spaces_with_architectures())
@runs(120)
def test_the_parts_of_a_network_add_up_to_it(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    chosen = _chosen(space, encode(space, architecture))
    scored = [conv.width for conv in convolutions(space, architecture) if conv.stage >= 0]
    sums = [sum(int(getattr(terms, name)[index]) for terms, index in chosen) for name in ("macs", "params", "layers")]
    assert sums == [*macs_and_params(space, architecture), len(scored)]
    by_kind = sum(terms.kind_log_widths[:, index] for terms, index in chosen)
    in_stages = [conv for conv in convolutions(space, architecture) if conv.stage > 0]
    kinds = [sum(math.log(conv.width) for conv in in_stages if conv.kind == kind) for kind in range(3)]
    assert by_kind == pytest.approx(np.array(kinds), rel=1e-12)
    log_widths = sum(float(terms.log_widths[index]) for terms, index in chosen)
    assert log_widths == pytest.approx(sum(map(math.log, scored)), rel=1e-12)
    peak = max(int(terms.activation_bytes[index]) for terms, index in chosen)
    assert peak == peak_activation_bytes(space, architecture)


@given(spaces_with_architectures())
@runs(60)
def test_a_blocks_side_is_that_of_its_output(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    genes = encode(space, architecture)
    sides = {conv.stage: conv.side_out for conv in convolutions(space, architecture) if conv.stage > 0}
    parts, terms = space_parts(space), space_terms(space)
    for s, slots in enumerate(parts.blocks):
        assert terms.blocks[s][0].side[slots[0].index(genes[:, None])[0]] == sides[s + 1]


@given(user_spaces())
@runs(40)
def test_rows_of_the_layer_table_belong_to_one_part_each(space: SearchSpace) -> None:
    table = layer_table(space, random_genes(space, 1, np.random.default_rng(0)))
    rows = [row for part in _all_parts(space_parts(space)) for row in part.rows]
    assert sorted(rows) == list(range(len(table.layers)))


@given(user_spaces())
@runs(40)
def test_an_absent_block_adds_nothing(space: SearchSpace) -> None:
    for slots in space_terms(space).blocks:
        for terms in slots:
            assert all((column[..., -1] == 0).all() for column in terms)


@given(small_spaces(most=5000))
@runs(40)
def test_every_choice_of_a_part_has_its_number(space: SearchSpace) -> None:
    columns = np.ascontiguousarray(all_genes(space).T)
    for part in _all_parts(space_parts(space)):
        numbers = part.index(columns)
        # The same number for the same genes only, and every number for some genes.
        distinct = np.unique(np.concatenate([columns[list(part.axes)], numbers[None]]), axis=1)
        assert distinct[-1].tolist() == list(range(part.choices))
        assert math.prod(part.shape) == part.choices


def test_a_choices_number_is_read_like_digits() -> None:
    part = NetworkPart(rows=(), axes=(2, 0, 3), shape=(2, 3, 4))
    columns = np.array([[0, 2, 1], [9, 9, 9], [0, 1, 1], [0, 3, 2]])
    assert part.index(columns).tolist() == [0, 12 + 2 * 4 + 3, 12 + 4 + 2]
    assert part.choices == 24


@pytest.mark.parametrize("name", PRESETS)
def test_later_blocks_of_a_stage_share_one_table(name: str) -> None:
    space = preset(name)
    for first, *later in tabulate(space, [macs]).blocks:
        assert len(later) == space.max_depth - 1
        assert all(slot is later[0] for slot in later)
        assert first is not later[0]
    for _, *copies in space_terms(space).blocks:
        assert all(np.array_equal(one, other) for slot in copies for one, other in zip(slot, copies[0], strict=True))


@pytest.mark.parametrize("name", PRESETS)
def test_later_blocks_are_as_the_layer_table_has_them(name: str) -> None:
    space = preset(name)
    parts, terms = space_parts(space), space_terms(space)
    genes = random_genes(space, 40, np.random.default_rng(1))
    genes[:, gene_layout(space).depth] = len(space.depths) - 1
    table, columns = layer_table(space, genes), np.ascontiguousarray(genes.T)
    for s, slots in enumerate(parts.blocks):
        for b, part in enumerate(slots):
            assert np.array_equal(terms.blocks[s][b].macs[part.index(columns)], macs(table.rows(part.rows)))


def test_a_figure_is_asked_of_every_choice_of_a_part() -> None:
    space = tiny_space()
    sizes = tabulate(space, [macs]).map(lambda figures: [len(figure) for figure in figures])
    assert sizes == space_parts(space).map(lambda part: [part.choices])
