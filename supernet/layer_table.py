"""The layer table: all layers of N architectures as arrays, from one walk over the space.

A row is a layer slot, a column an architecture. Costs, fitness, latency, slices and networks are all read from it, so
that none of them needs to know how a block is laid out (``fedpareto.supernet.blocks`` writes the rows).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import Column, IntArray
from fedpareto.supernet.blocks import LAYOUTS, BlockChoice, Layer, LayerKind, Size, write_head
from fedpareto.supernet.genes import Choices, choices, encode
from fedpareto.supernet.space import Norm, SearchSpace

#: Kinds of rows that hold weights.
WEIGHTED: tuple[LayerKind, ...] = ("conv", "shortcut", "squeeze", "excite", "linear")


@dataclasses.dataclass(frozen=True)
class LayerTable:
    """Every layer slot of N architectures of one space.

    Columns of shape (layers,): ``layers`` (what never varies: name, kind, stride, activation, norm, bias)
    and ``stage`` (0 the stem, 1…S the stages, S+1 the head). Columns of shape (layers, N), all integers:

    Attributes:
        c_in: input channels.
        c_out: output channels.
        kernel: kernel side in pixels.
        groups: convolution groups.
        h_in: input side in pixels.
        h_out: output side in pixels; 1 where the layer works on pooled values.
        held: elements per image of maps that stay alive beside the layer's own input and output.
        active: true where the architecture has the layer.
    """

    layers: tuple[Layer, ...]
    stage: IntArray
    c_in: IntArray
    c_out: IntArray
    kernel: IntArray
    groups: IntArray
    h_in: IntArray
    h_out: IntArray
    held: IntArray
    active: NDArray[np.bool_]

    @functools.cached_property
    def kind(self) -> NDArray[np.str_]:
        """Kind of every row, shape (layers,)."""
        return np.array([layer.kind for layer in self.layers])

    @functools.cached_property
    def fan_in(self) -> IntArray:
        """Inputs of one output of every convolution or linear layer: c_in·k²/groups, shape (layers, N)."""
        inputs = self.c_in * self.kernel * self.kernel
        # Integer division is slow, and most layers have one group.
        grouped = np.flatnonzero((self.groups != 1).any(axis=1))
        inputs[grouped] //= self.groups[grouped]
        return inputs

    @functools.cached_property
    def weights(self) -> IntArray:
        """Weights of every active layer, 0 where it is inactive or has none, shape (layers, N)."""
        weighted = np.isin(self.kind, WEIGHTED)[:, None] & self.active
        return self.fan_in * self.c_out * weighted

    def rows(self, indices: Sequence[int]) -> "LayerTable":
        """Return the table reduced to some of its rows."""
        kept = list(indices)
        columns = [getattr(self, field.name)[kept] for field in dataclasses.fields(self)[1:]]
        return LayerTable(tuple(self.layers[index] for index in kept), *columns)


class LayerRow(NamedTuple):
    """One active layer of one architecture: the scalar view the network builder and the slices read."""

    layer: Layer
    c_in: int
    c_out: int
    kernel: int
    groups: int


class _TableWriter:
    """Collects rows; columns that do not vary stay scalars until the table is assembled."""

    def __init__(self, norm: Norm) -> None:
        self.normed = norm != "none"
        self.layers: list[Layer] = []
        self.stages: list[int] = []
        self.columns: list[tuple[Column | NDArray[np.bool_] | bool, ...]] = []
        self.stage = 0

    def row(
        self,
        layer: Layer,
        before: Size,
        c_out: Column,
        *,
        kernel: Column = 1,
        groups: Column = 1,
        held: Column = 0,
        active: NDArray[np.bool_] | bool = True,
    ) -> Size:
        pooled = layer.kind in ("squeeze", "pool")
        side = 1 if pooled else (before.side + layer.stride - 1) // layer.stride
        self.layers.append(layer._replace(norm=layer.norm and self.normed))
        self.stages.append(self.stage)
        self.columns.append((before.channels, c_out, kernel, groups, before.side, side, held, active))
        return Size(c_out, side)

    def table(self, count: int) -> LayerTable:
        arrays = []
        for position, column in enumerate(zip(*self.columns, strict=True)):
            array: NDArray[Any] = np.empty((len(column), count), dtype=np.bool_ if position == 7 else np.int64)
            for row, values in enumerate(column):
                array[row] = values
            arrays.append(array)
        return LayerTable(tuple(self.layers), np.array(self.stages), *arrays)


def layer_table(space: SearchSpace, genes: ArrayLike) -> LayerTable:
    """Return the layers of N architectures; ``genes`` is (N, genes) or one vector.

    Raises:
        ArchitectureError: the genes do not fit the space.
    """
    chosen = choices(space, genes)
    writer = _TableWriter(space.norm)
    layout = LAYOUTS[space.family]
    image = Size(space.in_channels, chosen.resolution)
    size = layout.stem(writer, space, image, chosen.stem)
    for s in range(len(space.stages)):
        size = _write_stage(writer, space, s, size, chosen)
    writer.stage = len(space.stages) + 1
    write_head(writer, space, size, chosen.multiplier[-1])
    return writer.table(len(chosen.resolution))


def _write_stage(writer: _TableWriter, space: SearchSpace, s: int, size: Size, chosen: Choices) -> Size:
    spec, layout = space.stages[s], LAYOUTS[space.family]
    writer.stage = s + 1
    for b in range(space.max_depth):
        choice = BlockChoice(chosen.width[s], chosen.kernel[s, b], chosen.expand[s, b], chosen.active[s, b])
        size = layout.block(writer, f"stages.{s}.{b}", spec, size, choice, first=b == 0)
    return size


def architecture_rows(space: SearchSpace, architecture: Architecture) -> Iterator[LayerRow]:
    """Return the active layers of one architecture in the order they run.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    return active_rows(layer_table(space, encode(space, architecture)))


def active_rows(table: LayerTable, number: int = 0) -> Iterator[LayerRow]:
    """Yield the active layers of one of a table's architectures in the order they run."""
    for index in np.flatnonzero(table.active[:, number]):
        yield LayerRow(
            layer=table.layers[index],
            c_in=int(table.c_in[index, number]),
            c_out=int(table.c_out[index, number]),
            kernel=int(table.kernel[index, number]),
            groups=int(table.groups[index, number]),
        )
