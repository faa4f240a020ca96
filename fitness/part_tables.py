"""Part tables: costs and fitness terms of every choice of a stem, a block or a head.

The layers of a block depend on its stage, on whether it is the stage's first, and on a few genes: resolution,
input width, output width, kernel and expand ratio. So the costs and the fitness of any architecture are sums
over small tables, one for each part. They are computed here from the layer table, once for a space.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpareto.fitness.costs import macs, parameters, peak_activation_bytes
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import CONVOLUTIONS, FitnessSettings
from fedpareto.supernet.genes import gene_layout, largest_genes
from fedpareto.supernet.layer_table import LayerTable, layer_table
from fedpareto.supernet.space import SearchSpace

T = TypeVar("T")
U = TypeVar("U")

#: Function from the layers of N choices to one figure of each, shape (N,).
PartFigure = Callable[[LayerTable], NDArray[Any]]

#: Kinds of layers whose widths the fitness scores, in stem and stages.
_SCORED = ("conv", "shortcut")

#: Choices looked up in the layer table at a time.
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class Parts(Generic[T]):
    """One item for each part of a space's networks: stem, ``blocks`` by stage and block slot, and head."""

    stem: T
    blocks: tuple[tuple[T, ...], ...]
    head: T

    def map(self, function: Callable[[T], U]) -> "Parts[U]":
        """Apply ``function`` to every item."""
        blocks = tuple(tuple(function(slot) for slot in slots) for slots in self.blocks)
        return Parts(function(self.stem), blocks, function(self.head))


@dataclasses.dataclass(frozen=True)
class NetworkPart:
    """A part of a space's networks: the genes that decide its layers, and its rows in the layer table.

    Attributes:
        rows: the rows.
        axes: positions of the genes. A stem: resolution and stem width. A stage's first block: resolution,
            input width, output width, kernel, expand. A later block, whose input is as wide as its output:
            the same without input width. A head: resolution and last width.
        shape: number of choices of each gene.
    """

    rows: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def choices(self) -> int:
        """Number of choices of all genes together."""
        return math.prod(self.shape)

    def index(self, columns: IntArray) -> IntArray:
        """Return the index of the choice that each of N gene vectors makes, shape (N,); ``columns`` is (genes, N)."""
        index: IntArray = columns[self.axes[0]]
        for axis, size in zip(self.axes[1:], self.shape[1:], strict=True):
            index = index * size + columns[axis]
        return index


class FitnessTerms(NamedTuple):
    """Summands of each choice of a part, arrays of shape (choices + 1,), the last for an absent block.

    ``layers`` and ``log_widths`` are the number of scored convolutions and the sum of ``ln w`` over them,
    ``kind_log_widths`` (kinds, choices + 1) the same sum by their place in a block (``CONVOLUTIONS``), 0 in a stem;
    ``activation_bytes`` is the part's own peak, and ``side`` its output's, in pixels.
    """

    macs: IntArray
    params: IntArray
    activation_bytes: IntArray
    layers: IntArray
    log_widths: FloatArray
    side: IntArray
    kind_log_widths: FloatArray


@functools.lru_cache(maxsize=16)
def space_parts(space: SearchSpace) -> Parts[NetworkPart]:
    """Return the parts of a space."""
    genes = gene_layout(space)
    table = layer_table(space, largest_genes(space))
    widths = [genes.stem, *map(int, genes.width)]

    def part(rows: Iterable[int], *axes: int) -> NetworkPart:
        positions = (genes.resolution, *axes)
        return NetworkPart(tuple(rows), positions, tuple(int(genes.sizes[axis]) for axis in positions))

    def block(s: int, b: int) -> NetworkPart:
        rows = [row for row, layer in enumerate(table.layers) if layer.block == f"stages.{s}.{b}"]
        inputs = [widths[s]] if b == 0 else []
        return part(rows, *inputs, widths[s + 1], int(genes.kernel[s, b]), int(genes.expand[s, b]))

    stages = range(len(space.stages))
    return Parts(
        part(np.flatnonzero(table.stage == 0), genes.stem),
        tuple(tuple(block(s, b) for b in range(space.max_depth)) for s in stages),
        part(np.flatnonzero(table.stage == len(stages) + 1), widths[-1]),
    )


def choices_made(space: SearchSpace, columns: IntArray) -> Parts[IntArray]:
    """Return the indices of the choices that N gene vectors make, arrays of shape (N,); ``columns`` is (genes, N).

    The index after the last choice stands for an absent block.
    """
    parts = space_parts(space)
    depths = np.asarray(space.depths)[columns[gene_layout(space).depth]]
    blocks = tuple(
        tuple(
            slot.index(columns) if b < space.depths[0] else np.where(depth > b, slot.index(columns), slot.choices)
            for b, slot in enumerate(slots)
        )
        for slots, depth in zip(parts.blocks, depths, strict=True)
    )
    return Parts(parts.stem.index(columns), blocks, parts.head.index(columns))


def tabulate(space: SearchSpace, figures: Sequence[PartFigure]) -> Parts[tuple[NDArray[Any], ...]]:
    """Compute figures of every choice of every part, each of shape (choices,)."""
    parts = space_parts(space)

    def table(part: NetworkPart) -> tuple[NDArray[Any], ...]:
        return _figures(space, part, figures)

    # The layers of all later blocks of a stage are the same functions of their genes.
    tables = [[table(slot) for slot in slots[:2]] for slots in parts.blocks]
    blocks = tuple(tuple(pair[min(b, 1)] for b in range(space.max_depth)) for pair in tables)
    return Parts(table(parts.stem), blocks, table(parts.head))


def choice_layers(space: SearchSpace, part: NetworkPart, numbers: IntArray) -> LayerTable:
    """Return the layer table of N choices of a part, given by their indices, (N,)."""
    # All block slots are active in the largest network.
    genes = np.tile(largest_genes(space), (len(numbers), 1))
    genes[:, part.axes] = np.stack(np.unravel_index(numbers, part.shape), axis=1)
    return layer_table(space, genes).rows(part.rows)


@functools.lru_cache(maxsize=16)
def space_terms(space: SearchSpace) -> Parts[FitnessTerms]:
    """Return the fitness terms of every choice of every part of a space."""
    stages = len(space.stages)

    def scored(table: LayerTable) -> NDArray[np.bool_]:
        return (np.isin(table.kind, _SCORED) & (table.stage <= stages))[:, None] & table.active

    figures: tuple[PartFigure, ...] = (
        macs,
        parameters,
        peak_activation_bytes,
        lambda table: scored(table).sum(axis=0),
        lambda table: np.log(np.where(scored(table), table.fan_in, 1)).sum(axis=0),
        lambda table: table.h_out[-1],
        *(functools.partial(_log_width, name) for name in CONVOLUTIONS[space.family]),
    )

    def terms(columns: tuple[NDArray[Any], ...]) -> FitnessTerms:
        padded = [np.append(column, column.dtype.type(0)) for column in columns]
        return FitnessTerms._make([*padded[:-3], np.stack(padded[-3:])])

    return tabulate(space, figures).map(terms)


def _log_width(name: str, table: LayerTable) -> FloatArray:
    """Return ``ln w`` of a block's layer ``name``, 0 where there is none, (N,)."""
    named = np.array([layer.name.startswith("stages.") and layer.name.endswith(f".{name}") for layer in table.layers])
    here = named[:, None] & table.active
    log_width: FloatArray = np.log(np.where(here, table.fan_in, 1)).sum(axis=0)
    return log_width


@functools.lru_cache(maxsize=16)
def entropy_widths(space: SearchSpace, settings: FitnessSettings) -> Parts[FloatArray]:
    """Return ``Σ κ·ln w``, the sum that enters the entropy H, of each choice of a part, arrays of (choices + 1,)."""
    if not settings.weighs_kinds:
        return space_terms(space).map(lambda terms: terms.log_widths)
    weights = np.broadcast_to(np.asarray(settings.kind_weights), (len(CONVOLUTIONS[space.family]),))
    return space_terms(space).map(lambda terms: weights @ terms.kind_log_widths)


def _figures(space: SearchSpace, part: NetworkPart, figures: Sequence[PartFigure]) -> tuple[NDArray[Any], ...]:
    chunks = []
    for start in range(0, part.choices, _CHUNK):
        table = choice_layers(space, part, np.arange(start, min(start + _CHUNK, part.choices)))
        chunks.append([figure(table) for figure in figures])
    return tuple(np.concatenate(columns) for columns in zip(*chunks, strict=True))
