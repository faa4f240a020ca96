"""Slices of the supernet's tensors that each subnet owns, and the tensor shapes of any architecture.

A subnet of a supernet has no weights of its own. Of channels it owns the first ones, of kernels the centre, of stages
the first blocks. So the names of its tensors are a subset of the supernet's, and one function serves extraction,
forward, transport and aggregation.
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
    """Return the largest architecture of the space, which the supernet's tensors belong to."""
    return decode(space, largest_genes(space))


@functools.lru_cache(maxsize=1024)
def tensor_shapes(space: SearchSpace, architecture: Architecture) -> Mapping[str, Shape]:
    """Return the shape of every trainable tensor by name, in the order the layers run.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    shapes: dict[str, Shape] = {}
    for row in architecture_rows(space, architecture):
        shapes.update(row_shapes(row))
    return MappingProxyType(shapes)


@functools.lru_cache(maxsize=1024)
def slices(space: SearchSpace, architecture: Architecture) -> Mapping[str, Slices]:
    """Return the slices of the supernet's tensors that ``architecture`` owns, by tensor name.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    full = tensor_shapes(space, supernet_architecture(space))
    return MappingProxyType(slices_within(tensor_shapes(space, architecture), full))


def slices_within(shapes: Mapping[str, Shape], outer: Mapping[str, Shape]) -> dict[str, Slices]:
    """Return the slices that a network owns of the tensors of another one around it, by name; both given as shapes."""
    # The first two axes are channels, (c_out, c_in / groups), the others a kernel's rows and columns. Prefixes are
    # nested: the slice of a narrower network lies in that of a wider one, so two subnets share the lesser prefix, and
    # no permutation of channels has to be remembered. The first input channels of a layer are the first output
    # channels of the one before it, so a subnet computes with exactly the channels that it owns. Widths are multiples
    # of 8, so GroupNorm's groups of 8 are never cut.
    return {
        name: tuple(
            _centre(size, whole) if axis >= 2 else slice(0, size)
            for axis, (size, whole) in enumerate(zip(shape, outer[name], strict=True))
        )
        for name, shape in shapes.items()
    }


def row_shapes(row: LayerRow) -> dict[str, Shape]:
    """Return the shape of every trainable tensor of one layer by name."""
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
    """Return the centre crop of a kernel side."""
    # Kernel sides are odd, so that ``whole − size`` is even and the centres coincide: with padding (k − 1)/2 a smaller
    # kernel is the larger one with zeros around it, at the same output positions.
    start = (whole - size) // 2
    return slice(start, start + size)
