"""What several subnets of one supernet share travels once: their slices overlap, and are cut apart where they arrive.

A message with one job holds its tensors as ``0/NAME``. With several, a tensor of the supernet travels as
``shared/NAME``, in the smallest box that holds all jobs' slices of it, zero where none of them lies; what is a job's
own, BatchNorm's statistics, is named as before.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Slices, slices
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.engines.flower import wire

_SHARED = "shared"


def pack(space: SearchSpace, jobs: Sequence[tuple[Architecture, Mapping[str, Tensor]]]) -> Tensors:
    """Return the tensors of jobs on subnets of one supernet, each with its architecture, as they travel."""
    if len(jobs) == 1:
        return wire.joined([tensors for _, tensors in jobs])
    corners = _corners(space, [architecture for architecture, _ in jobs])
    sizes = _sizes(space, [architecture for architecture, _ in jobs], corners)
    packed: Tensors = {}
    for index, (architecture, tensors) in enumerate(jobs):
        owned = slices(space, architecture)
        for name, tensor in tensors.items():
            if name not in owned:
                packed[f"{index}/{name}"] = tensor
                continue
            shared = f"{_SHARED}/{name}"
            if shared not in packed:
                packed[shared] = torch.zeros(sizes[name], dtype=tensor.dtype)
            packed[shared][_within(owned[name], corners[name])] = tensor.detach().cpu()
    return packed


def unpack(space: SearchSpace, architectures: Sequence[Architecture], packed: Mapping[str, Tensor]) -> list[Tensors]:
    """Return every job's tensors, those of the supernet as views of what is shared.

    Raises:
        WireError: a tensor belongs to no job.
    """
    prefix = f"{_SHARED}/"
    shared = {name.removeprefix(prefix): tensor for name, tensor in packed.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in packed.items() if not name.startswith(prefix)}
    parts = wire.separated(own, len(architectures))
    corners = _corners(space, architectures)
    for architecture, part in zip(architectures, parts, strict=True):
        for name, index in slices(space, architecture).items():
            if name in shared:
                part[name] = shared[name][_within(index, corners[name])]
    return parts


def _corners(space: SearchSpace, architectures: Sequence[Architecture]) -> dict[str, tuple[int, ...]]:
    """Return where the box of every tensor begins in the supernet's."""
    corners: dict[str, tuple[int, ...]] = {}
    for architecture in architectures:
        for name, index in slices(space, architecture).items():
            start = tuple(axis.start for axis in index)
            corners[name] = tuple(map(min, start, corners.get(name, start)))
    return corners


def _sizes(
    space: SearchSpace, architectures: Sequence[Architecture], corners: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    for architecture in architectures:
        for name, index in slices(space, architecture).items():
            size = tuple(axis.stop - corner for axis, corner in zip(index, corners[name], strict=True))
            sizes[name] = tuple(map(max, size, sizes.get(name, size)))
    return sizes


def _within(index: Slices, corner: Sequence[int]) -> Slices:
    return tuple(slice(axis.start - start, axis.stop - start) for axis, start in zip(index, corner, strict=True))
