"""Candidates of decnas: one dimension of one stage less, as little less as meets the target."""

import numpy as np
import pytest
from helpers.networks.spaces import SMALL_RESNET
from helpers.networks.strategies import architectures, runs, spaces_with_architectures
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import largest, smallest
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.entries import make_entry
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import canonical, encode, gene_layout
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.methods.decnas.candidates import (
    Candidate,
    candidates,
    least_macs,
    lowerings,
    nearest_candidates,
)

#: Two ratios a block beside MICRO's two: reductions of several choices.
_FINE = micro_space(name="fine", depths=(1, 2, 3), kernels=(3, 5, 7), expands=(1, 2, 3, 4, 6))

_cases = st.one_of(
    *(st.tuples(st.just(space), architectures(space)) for space in (MICRO, _FINE, SMALL_RESNET)),
    spaces_with_architectures(),
)
_shares = st.floats(0.05, 0.999)


def _macs(space: SearchSpace, genes: IntArray) -> int:
    return int(score(space, genes).macs[0])


def _positions(space: SearchSpace, genes: IntArray, stage: int, dimension: str) -> list[int]:
    layout = gene_layout(space)
    if dimension in ("width", "depth"):
        return [getattr(layout, dimension)[stage]]
    return list(getattr(layout, dimension)[stage, : space.depths[genes[layout.depth[stage]]]])


def _with_of(candidate: IntArray, current: IntArray, positions: list[int]) -> IntArray:
    genes = current.copy()
    genes[positions] = candidate[positions]
    return genes


def _undone(space: SearchSpace, lowered: IntArray, current: IntArray, positions: list[int]) -> list[int]:
    """Return the MACs with one of the positions raised until the network is another one, for each that was lowered."""
    found = []
    for position in positions:
        for value in range(lowered[position] + 1, current[position] + 1):
            raised = _with_of(lowered, current, positions)
            raised[position] = value
            macs = _macs(space, raised)
            if macs > _macs(space, _with_of(lowered, current, positions)):
                found.append(macs)
                break
    return found


@given(case=_cases, share=_shares)
@runs(150)
def test_a_candidate_meets_the_target_by_one_dimension_to_within_one_choice(
    case: tuple[SearchSpace, Architecture], share: float
) -> None:
    space, current = case
    before = encode(space, current)
    target = int(share * _macs(space, before))
    found = {(one.stage, one.dimension): one.entry for one in candidates(space, current, target)}
    for stage in range(len(space.stages)):
        for dimension in ("width", "depth", "expand", "kernel"):
            positions = _positions(space, before, stage, dimension)
            entry = found.get((stage, dimension))
            if entry is None:
                # Not even the least of the dimension reaches the target.
                least = before.copy()
                least[positions] = 0
                assert _macs(space, least) > target
                continue
            after = encode(space, entry.architecture)
            assert entry.macs == _macs(space, after) <= target
            assert (canonical(space, _with_of(after, before, positions))[0] == after).all()
            assert max(_undone(space, after, before, positions)) > target


@pytest.mark.slow
@given(case=_cases, share=_shares)
@runs(60)
def test_a_candidate_is_a_slice_of_the_current_network(case: tuple[SearchSpace, Architecture], share: float) -> None:
    space, current = case
    outer = tensor_shapes(space, current)
    for candidate in candidates(space, current, int(share * make_entry(space, current).macs)):
        inner = tensor_shapes(space, candidate.entry.architecture)
        assert inner.keys() <= outer.keys()
        assert all(np.less_equal(shape, outer[name]).all() for name, shape in inner.items())


def test_of_the_blocks_of_a_stage_the_largest_gives_way_and_of_equal_ones_the_last() -> None:
    genes = encode(_FINE, largest(_FINE))
    slots = gene_layout(_FINE).kernel[0]
    kernels = [tuple(lowered[slots]) for lowered in lowerings(_FINE, genes, 0, "kernel")]
    assert kernels == [(2, 2, 1), (2, 1, 1), (1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 0)]


def test_every_stage_and_dimension_that_reaches_the_target_is_there_by_its_name() -> None:
    entry = make_entry(MICRO, largest())
    found = candidates(MICRO, largest(), entry.macs - 1)
    assert [one.name for one in found] == [
        f"stage{stage}-{dimension}" for stage in (0, 1) for dimension in ("width", "depth", "expand", "kernel")
    ]
    assert candidates(MICRO, smallest(), make_entry(MICRO, smallest()).macs - 1) == []


def test_a_resnet_has_no_kernels_to_lower() -> None:
    entry = make_entry(SMALL_RESNET, largest(SMALL_RESNET))
    found = candidates(SMALL_RESNET, largest(SMALL_RESNET), entry.macs - 1)
    assert {one.dimension for one in found} == {"width", "depth", "expand"}


@given(case=_cases)
@runs(60)
def test_the_least_macs_are_those_of_the_network_that_nothing_can_be_taken_from(
    case: tuple[SearchSpace, Architecture],
) -> None:
    space, start = case
    current = make_entry(space, start)
    while found := candidates(space, current.architecture, current.macs - 1):
        current = found[0].entry
    assert current.macs == least_macs(space, start)


def test_a_target_that_no_dimension_reaches_asks_for_half_as_much_until_one_does() -> None:
    current = make_entry(MICRO, largest())
    reach = min(one.entry.macs for one in candidates(MICRO, largest(), current.macs - 1))
    least = min(
        _macs(MICRO, list(lowerings(MICRO, encode(MICRO, largest()), stage, dimension))[-1])
        for stage in (0, 1)
        for dimension in ("width", "depth", "expand", "kernel")
    )
    assert reach >= least
    wanted = least // 2
    target, found = nearest_candidates(MICRO, current, wanted, lambda one: True)
    assert found == candidates(MICRO, largest(), target) != []
    assert candidates(MICRO, largest(), 2 * target - current.macs) == []
    assert (current.macs - wanted) // (current.macs - target) in (1, 2, 4)


def test_only_allowed_candidates_count_and_there_may_be_none() -> None:
    current = make_entry(MICRO, largest())

    def narrow(one: Candidate) -> bool:
        return one.name == "stage1-kernel"

    target, found = nearest_candidates(MICRO, current, current.macs // 2, narrow)
    assert [one.name for one in found] == ["stage1-kernel"]
    assert found[0].entry.macs <= target
    assert nearest_candidates(MICRO, current, current.macs // 2, lambda one: False)[1] == []


@pytest.mark.parametrize("target", [0, -5])
def test_a_target_of_nothing_still_finds_what_there_is_to_take(target: int) -> None:
    current = make_entry(MICRO, largest())
    assert nearest_candidates(MICRO, current, target, lambda one: True)[1]
