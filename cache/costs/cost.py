"""Costs with limits: sums over the parts of a network, such as MACs, and maxima, such as peak memory.

A cost is a table of every choice of every part. Solvers add up the tables; limits are checked with them.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from fedpareto.fitness.costs import FilePrecision, file_bytes
from fedpareto.fitness.part_tables import (
    Parts,
    choices_made,
    space_terms,
    tabulate,
)
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.formats.units import format_bytes, format_quantity
from fedpareto.supernet.space import SearchSpace

#: Names of the counted costs in messages.
COST_NAMES = {"macs": "MACs", "params": "parameters"}

#: Relative tolerance within which a cost that equals its limit, but for rounding, is within it.
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class LimitedCost(abc.ABC):
    """A cost that is made up from the parts of a network, with an upper limit.

    Attributes:
        name: name of the cost in messages.
        parts: the cost of every choice of every part, arrays of shape (choices,).
        limit: the most a network may have.
        unit: unit of the cost; empty for counts.
    """

    name: str
    parts: Parts[FloatArray]
    limit: float = math.inf
    unit: str = ""

    @abc.abstractmethod
    def of(self, space: SearchSpace, genes: IntArray) -> FloatArray:
        """Return the cost of N architectures, (N,); ``genes`` is (N, genes)."""

    @abc.abstractmethod
    def additive(self) -> "AdditiveCost":
        """Return an additive cost whose limit the same architectures are within."""

    def words(self) -> str:
        """Return the limit in words, e.g. ``at most 5 ms latency`` or ``at most 2M parameters``."""
        return f"at most {self.amount(self.limit)} {COST_NAMES.get(self.name, self.name)}"

    def amount(self, value: float, *, exact: bool = False) -> str:
        """Return a value of the cost with its unit; an ``exact`` one has all digits of a count."""
        if self.unit in ("", "B"):
            short = format_bytes(value) if self.unit else format_quantity(value)
            return f"{math.ceil(value):,} ({short})" if exact else short
        return f"{value:.6g} {self.unit}"

    @property
    def most(self) -> float:
        """The limit with what rounding may add to a sum."""
        return self.limit * (1 + _ROUNDING)

    def _paid(self, space: SearchSpace, genes: IntArray) -> Iterator[FloatArray]:
        """Yield the cost of each part of N architectures, (N,); an absent block costs 0."""
        made = choices_made(space, np.ascontiguousarray(genes.T))
        yield self.parts.stem[made.stem]
        yield self.parts.head[made.head]
        for tables, slots in zip(self.parts.blocks, made.blocks, strict=True):
            for values, index in zip(tables, slots, strict=True):
                # An absent block is numbered after the last choice.
                yield np.append(values, 0.0)[index]


class AdditiveCost(LimitedCost):
    """A cost that is the sum over the parts of a network, such as MACs or a latency table."""

    def of(self, space: SearchSpace, genes: IntArray) -> FloatArray:
        """Return the cost of N architectures, (N,); ``genes`` is (N, genes)."""
        total: FloatArray = functools.reduce(np.add, self._paid(space, genes))
        return total

    def additive(self) -> "AdditiveCost":
        """Return the cost itself."""
        return self


class PeakCost(LimitedCost):
    """A cost that is the largest over the parts of a network, such as the memory of its feature maps."""

    def of(self, space: SearchSpace, genes: IntArray) -> FloatArray:
        """Return the cost of N architectures, (N,); ``genes`` is (N, genes)."""
        peak: FloatArray = functools.reduce(np.maximum, self._paid(space, genes))
        return peak

    def additive(self) -> AdditiveCost:
        """Return the number of parts that exceed the limit as a cost; a limit of one half admits none."""
        beyond = self.parts.map(lambda values: (values > self.most).astype(float))
        return AdditiveCost(f"parts beyond {self.name}", beyond, 0.5)


def count_cost(space: SearchSpace, name: str, limit: float = math.inf) -> AdditiveCost:
    """Return the cost ``macs`` or ``params`` of a space's networks."""
    parts = space_terms(space).map(lambda terms: getattr(terms, name)[:-1].astype(float))
    return AdditiveCost(name, parts, limit)


def size_cost(space: SearchSpace, precision: FilePrecision, limit: float = math.inf) -> AdditiveCost:
    """Return the file size as a cost: an upper bound on the bytes of the exported ONNX file, a few per cent above."""
    figures = tabulate(space, [lambda table: file_bytes(table, space.norm, precision)])
    return AdditiveCost("size", figures.map(lambda columns: columns[0].astype(float)), limit, "B")


def memory_cost(space: SearchSpace, batch: int = 1, limit: float = math.inf) -> PeakCost:
    """Return the peak memory of fp32 feature maps of ``batch`` images as a cost, in bytes."""
    parts = space_terms(space).map(lambda terms: terms.activation_bytes[:-1].astype(float) * batch)
    return PeakCost("memory", parts, limit, "B")
