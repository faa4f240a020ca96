"""Latency as an additive cost of a space's networks, from a device's latency table."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.cache.costs.latency.block_names import Names, block_names, distinct_names
from fedpareto.cache.costs.latency.table import Correction, LatencyTable, LatencyTableError, read_table
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.space import SearchSpace


def latency_cost(
    table: LatencyTable, space: SearchSpace, limit: float = math.inf, *, source: object = "the latency table"
) -> AdditiveCost:
    """Return the latency of the space's networks as an additive cost in milliseconds, at most ``limit``.

    A correction's factor goes to every block and its offset to the stem, of which every network has one.

    Args:
        table: the times.
        space: the search space.
        limit: most milliseconds of a network.
        source: name of the table in errors, such as its path.

    Raises:
        LatencyTableError: the table lacks a block of the space, or a time is no number of at least 0.
    """
    names, times = block_names(space), table.blocks
    wanted = distinct_names(names)
    _check_times(table, space, wanted, source)
    correction = table.correction or Correction(1.0, 0.0)
    if not (0 < correction.factor < math.inf and math.isfinite(correction.offset_ms)):
        raise LatencyTableError(f"{source}: correction needs a factor above 0 and a finite offset, found {correction}")

    def column(part: Names) -> FloatArray:
        return np.array([times[str(name)] for name in part], dtype=np.float64) * correction.factor

    parts = names.map(column)
    stem = parts.stem + correction.offset_ms
    if (stem < 0).any():
        raise LatencyTableError(f"{source}: correction makes a stem's time {stem.min():.6g} ms; it must be at least 0")
    return AdditiveCost("latency", dataclasses.replace(parts, stem=stem), limit, "ms")


def read_latency(path: Path, space: SearchSpace, limit: float = math.inf) -> AdditiveCost:
    """Read a latency table and return it as a cost; raises the errors of ``read_table`` and ``latency_cost``."""
    return latency_cost(read_table(path), space, limit, source=path)


def _check_times(table: LatencyTable, space: SearchSpace, wanted: list[str], source: object) -> None:
    missing = [name for name in wanted if name not in table.blocks]
    if missing:
        lacks = f"lacks {len(missing):,} of the {counted(len(wanted), 'block')} of {space.name}, such as {missing[0]!r}"
        if table.measured is not None and table.measured.space != space.name:
            lacks = f"was measured for {table.measured.space}, not {space.name}; it {lacks}"
            source = f"space: {source}"
        raise LatencyTableError(f"{source} {lacks}; measure them on the device with profile-device")
    for name in wanted:
        time = table.blocks[name]
        if not isinstance(time, int | float) or isinstance(time, bool) or not 0 <= time <= sys.float_info.max:
            raise LatencyTableError(f"{source}: the time of {name!r} is {time!r}; it must be a number of at least 0")
