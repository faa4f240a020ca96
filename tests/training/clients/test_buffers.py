"""Memory that clients share in turn."""

import itertools
from collections.abc import Mapping

import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.networks.strategies import architectures, runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, smallest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.buffers import Buffers

FORMATS = (torch.channels_last, torch.contiguous_format)
_CPU = torch.device("cpu")


def _buffers(space: SearchSpace, memory_format: torch.memory_format = torch.channels_last) -> Buffers:
    return Buffers(space, _CPU, memory_format)


def _views(buffers: Buffers, space: SearchSpace, architecture: Architecture) -> Tensors:
    return buffers.views(tensor_shapes(space, architecture))


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Return the first address of a dense tensor's memory and the one after its last."""
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def _addresses(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def _spaces_with_two() -> st.SearchStrategy[tuple[SearchSpace, Architecture, Architecture]]:
    return st.sampled_from((MICRO, SMALL_RESNET)).flatmap(
        lambda space: st.tuples(st.just(space), architectures(space), architectures(space))
    )


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@runs(20)
@given(drawn=_spaces_with_two())
def test_views_are_dense_in_the_shapes_and_the_format_asked_for(
    memory_format: torch.memory_format, drawn: tuple[SearchSpace, Architecture, Architecture]
) -> None:
    space, architecture, _ = drawn
    views = _views(_buffers(space, memory_format), space, architecture)
    assert {name: tuple(view.shape) for name, view in views.items()} == dict(tensor_shapes(space, architecture))
    for name, view in views.items():
        wanted = memory_format if view.ndim == 4 else torch.contiguous_format
        assert view.is_contiguous(memory_format=wanted), name
        assert view.dtype == torch.float32
        assert not view.requires_grad


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@runs(20)
@given(drawn=_spaces_with_two())
def test_views_of_two_architectures_overlap_by_name_and_never_otherwise(
    memory_format: torch.memory_format, drawn: tuple[SearchSpace, Architecture, Architecture]
) -> None:
    space, one, other = drawn
    buffers = _buffers(space, memory_format)
    first, second = _views(buffers, space, one), _views(buffers, space, other)
    whole = _views(buffers, space, largest(space))
    for views in (first, second):
        for name, view in views.items():
            assert view.data_ptr() == whole[name].data_ptr()
            assert view.nbytes <= whole[name].nbytes
    extents = sorted(map(_extent, whole.values()))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(extents))


def test_views_asked_for_again_are_the_same_memory_and_other_buffers_another() -> None:
    buffers = _buffers(MICRO)
    before = _addresses(_views(buffers, MICRO, smallest()))
    _views(buffers, MICRO, largest())
    assert _addresses(_views(buffers, MICRO, smallest())) == before
    other = _addresses(_views(_buffers(MICRO), MICRO, smallest()))
    assert not set(before.values()) & set(other.values())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@runs(15)
@given(drawn=_spaces_with_two())
def test_a_view_filled_whole_holds_nothing_of_the_one_before_whatever_it_was(
    memory_format: torch.memory_format, drawn: tuple[SearchSpace, Architecture, Architecture]
) -> None:
    space, one, other = drawn
    buffers = _buffers(space, memory_format)
    for view in _views(buffers, space, one).values():
        view.fill_(float("nan"))
    second = _views(buffers, space, other)
    for number, view in enumerate(second.values()):
        view.copy_(torch.arange(view.numel()).view(view.shape) + 1000 * number)
    for number, view in enumerate(second.values()):
        assert torch.equal(view, (torch.arange(view.numel()) + 1000.0 * number).view(view.shape))


@pytest.mark.parametrize(
    ("memory_format", "order"), [(torch.channels_last, (0, 2, 3, 1)), (torch.contiguous_format, (0, 1, 2, 3))], ids=str
)
def test_values_lie_in_the_order_of_the_format_from_the_blocks_first_on(
    memory_format: torch.memory_format, order: tuple[int, ...]
) -> None:
    name, shape = "head.last.conv.weight", (4, 2, 3, 3)
    view = _buffers(MICRO, memory_format).views({name: shape})[name]
    values = torch.arange(72.0).view(shape)
    view.copy_(values)
    assert torch.equal(view.as_strided((72,), (1,)), values.permute(order).flatten())
