"""What the block slots of a network may hold, and the networks of paths through them."""

import itertools

import numpy as np
import pytest
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import largest, smallest

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture, Block
from fedpareto.supernet.common.errors import SpaceError
from fedpareto.supernet.genes import decode, encode
from fedpareto.supernet.slices import slices, supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.paths import Paths, paths_through

_SPACES = [MICRO, SMALL_RESNET, load_space("mobilenet-tiny"), load_space("resnet-cifar")]


def _random_choices(paths: Paths, count: int) -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [[int(generator.integers(len(slot.choices))) for slot in paths.slots] for _ in range(count)]


def test_a_slot_holds_every_block_within_its_own_and_none_where_its_stage_may_end() -> None:
    paths = paths_through(MICRO, largest())
    blocks = tuple(Block(kernel=kernel, expand=expand) for kernel in (3, 5) for expand in (2, 3))
    assert [(slot.stage, slot.index) for slot in paths.slots] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [slot.choices for slot in paths.slots] == [blocks, (*blocks, None)] * 2
    assert [slot.largest for slot in paths.slots] == [3] * 4


def test_a_smaller_network_has_fewer_choices() -> None:
    paths = paths_through(MICRO, smallest())
    assert [slot.choices for slot in paths.slots] == [(Block(kernel=3, expand=2),)] * 2
    genes = encode(MICRO, largest())
    genes[[4, 7]] = 0  # kernel 3 in the first slot, ratio 2 in the second
    choices = [slot.choices for slot in paths_through(MICRO, decode(MICRO, genes)).slots[:2]]
    assert choices == [
        (Block(kernel=3, expand=2), Block(kernel=3, expand=3)),
        (Block(kernel=3, expand=2), Block(kernel=5, expand=2), None),
    ]


def test_a_stage_ends_only_at_the_depths_of_the_space() -> None:
    space = micro_space(depths=(1, 3))
    may_end = [slot.choices[-1] is None for slot in paths_through(space, supernet_architecture(space)).slots]
    assert may_end == [False, True, False] * 2


def test_ratios_that_make_the_same_block_are_one_choice() -> None:
    space = micro_space(expands=(2, 2.1, 3))
    expands = [block.expand for block in paths_through(space, supernet_architecture(space)).slots[1].choices if block]
    assert expands == [2, 3] * 2


@pytest.mark.parametrize("space", _SPACES, ids=lambda space: space.name)
def test_the_largest_blocks_are_the_network_and_have_all_paths_inside(space: SearchSpace) -> None:
    whole = supernet_architecture(space)
    paths = paths_through(space, whole)
    assert paths.architecture == whole
    assert paths.network(paths.path([slot.largest for slot in paths.slots])) == whole
    for chosen in _random_choices(paths, 5):
        assert slices(space, paths.network(paths.path(chosen))).keys() <= slices(space, whole).keys()


@pytest.mark.parametrize("space", _SPACES, ids=lambda space: space.name)
def test_the_network_of_a_path_is_canonical_and_has_its_macs(space: SearchSpace) -> None:
    paths = paths_through(space, supernet_architecture(space))
    for chosen in _random_choices(paths, 20):
        path = paths.path(chosen)
        network = paths.network(path)
        assert decode(space, encode(space, network)) == network
        assert paths.macs(path) == macs_of(space, network)


def test_behind_a_skipped_slot_its_stage_has_no_more() -> None:
    space = micro_space(depths=(1, 2, 3))
    paths = paths_through(space, supernet_architecture(space))
    path = paths.path([0, 4, 2, 1, 2, 4])
    assert path == (0, 4, None, 1, 2, 4)
    assert [len(stage.blocks) for stage in paths.network(path).stages] == [1, 2]


def test_paths_reach_every_network_of_the_widths_once() -> None:
    paths = paths_through(MICRO, largest())
    seen: dict[Architecture, set[tuple[int | None, ...]]] = {}
    for chosen in itertools.product(*(range(len(slot.choices)) for slot in paths.slots)):
        path = paths.path(chosen)
        seen.setdefault(paths.network(path), set()).add(path)
    assert len(seen) == (4 * 5) ** 2
    assert all(len(found) == 1 for found in seen.values())


def test_blocks_that_share_their_ratio_have_no_paths_of_their_own() -> None:
    space = micro_space(expands_per="stage")
    with pytest.raises(SpaceError, match="one expand ratio for all blocks of a stage; a path has one for every block"):
        paths_through(space, supernet_architecture(space))
