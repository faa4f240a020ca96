"""The layers of one architecture with their costs, for the page of a search."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.fitness.costs import macs, parameters
from fedpareto.fitness.part_tables import Parts, T, choices_made, space_parts
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import encode
from fedpareto.supernet.layer_table import layer_table
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class LayerLine:
    """One active layer of an architecture.

    Attributes:
        name: its path.
        part: the part it is timed with: ``stem``, a block such as ``stages.0.1``, or ``head``.
        kind: its kind in the layer table.
        c_in: input channels.
        c_out: output channels.
        kernel: kernel side in pixels.
        stride: stride in pixels.
        side: output side in pixels; 1 where the layer works on pooled values.
        macs: multiply–accumulates of one image.
        params: trainable parameters, those of its norm included.
        latency: milliseconds of the whole part, on the part's first layer; None on all others and without a table.
    """

    name: str
    part: str
    kind: str
    c_in: int
    c_out: int
    kernel: int
    stride: int
    side: int
    macs: int
    params: int
    latency: float | None = None


def layer_lines(space: SearchSpace, architecture: Architecture, cost: AdditiveCost | None = None) -> list[LayerLine]:
    """Return the active layers of an architecture in the order they run, with the latency of their parts.

    MACs and parameters add up to the architecture's, and latencies to what ``cost``, in milliseconds, has of it.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    genes = encode(space, architecture)
    table = layer_table(space, genes)
    part_of = _parts_of_rows(space)
    latencies = {} if cost is None else _latencies(space, genes, cost)
    lines = []
    for index in map(int, np.flatnonzero(table.active[:, 0])):
        row, layer, part = table.rows([index]), table.layers[index], part_of[index]
        line = LayerLine(
            name=layer.name,
            part=part,
            kind=layer.kind,
            c_in=int(row.c_in.item()),
            c_out=int(row.c_out.item()),
            kernel=int(row.kernel.item()),
            stride=layer.stride,
            side=int(row.h_out.item()),
            macs=int(macs(row).item()),
            params=int(parameters(row).item()),
            latency=latencies.pop(part, None),
        )
        lines.append(line)
    return lines


def _parts_of_rows(space: SearchSpace) -> Mapping[int, str]:
    """Return the name of the part that each row of the space's layer table belongs to."""
    parts = space_parts(space)
    return {row: name for name, part in _named(parts).items() for row in part.rows}


def _latencies(space: SearchSpace, genes: IntArray, cost: AdditiveCost) -> dict[str, float]:
    """Return the cost of every part that one architecture has."""
    made, tables = _named(choices_made(space, genes[:, None])), _named(cost.parts)
    indices = {name: int(index.item()) for name, index in made.items()}
    # The number after the last choice stands for a block that is absent.
    return {name: float(table[indices[name]]) for name, table in tables.items() if indices[name] < len(table)}


def _named(parts: Parts[T]) -> dict[str, T]:
    blocks = {f"stages.{s}.{b}": slot for s, slots in enumerate(parts.blocks) for b, slot in enumerate(slots)}
    return {"stem": parts.stem, **blocks, "head": parts.head}
