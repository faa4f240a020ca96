"""Tensor shapes of an architecture, and the slice of every supernet tensor it owns.

Channels take a prefix, kernels the centre crop, stages their first blocks: the names of a subnet's tensors
are a subset of the supernet's, and one function serves extraction, forward, transport and aggregation.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, largest_genes
from fedpareto.supernet.layer_table import LayerRow, architecture_rows
from fedpareto.supernet.space import SearchSpace

Shape = tuple[int, ...]
Slices = tuple[slice, ...]


@functools.lru_cache(maxsize=16)
def supernet_architecture(space: SearchSpace) -> Architecture:
    """Return the largest architecture of the space: the one the supernet's tensors belong to."""
    return decode(space, largest_genes(space))


@functools.lru_cache(maxsize=1024)
def tensor_shapes(space: SearchSpace, architecture: Architecture) -> Mapping[str, Shape]:
    """Return the name and shape of every trainable tensor, in the order the layers run.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    shapes: dict[str, Shape] = {}
    for row in architecture_rows(space, architecture):
        shapes.update(row_shapes(row))
    return MappingProxyType(shapes)


@functools.lru_cache(maxsize=1024)
def slices(space: SearchSpace, architecture: Architecture) -> Mapping[str, Slices]:
    """Return, for every tensor of ``architecture``, the slices of the supernet's tensor that it owns.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    full = tensor_shapes(space, supernet_architecture(space))
    return MappingProxyType(slices_within(tensor_shapes(space, architecture), full))


def slices_within(shapes: Mapping[str, Shape], outer: Mapping[str, Shape]) -> dict[str, Slices]:
    """Return, for every tensor of a network, the slices that it owns of a network's around it, by their shapes."""
    return {
        name: tuple(
            _centre(size, whole) if axis >= 2 else slice(0, size)
            for axis, (size, whole) in enumerate(zip(shape, outer[name], strict=True))
        )
        for name, shape in shapes.items()
    }


def row_shapes(row: LayerRow) -> dict[str, Shape]:
    """Return the name and shape of every trainable tensor of one layer."""
    layer = row.layer
    shapes: dict[str, Shape] = {}
    if layer.kind in ("conv", "shortcut", "squeeze", "excite"):
        shapes[f"{layer.name}.conv.weight"] = (row.c_out, row.c_in // row.groups, row.kernel, row.kernel)
        if layer.bias:
            shapes[f"{layer.name}.conv.bias"] = (row.c_out,)
    if layer.kind == "linear":
        shapes[f"{layer.name}.linear.weight"] = (row.c_out, row.c_in)
        if layer.bias:
            shapes[f"{layer.name}.linear.bias"] = (row.c_out,)
    if layer.norm:
        shapes[f"{layer.name}.norm.weight"] = (row.c_out,)
        shapes[f"{layer.name}.norm.bias"] = (row.c_out,)
    return shapes


def _centre(size: int, whole: int) -> slice:
    start = (whole - size) // 2
    return slice(start, start + size)
