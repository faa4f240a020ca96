"""Latency tables: a device's milliseconds for every block of a space, as an additive cost.

A JSON file: ``{"format": "fedpareto-latency-table", "version": 1, "blocks": {BLOCK: MILLISECONDS, …}}``. A block,
which may also be a stem or a head, is named by its layers, so that a table serves every space with such blocks.
"""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.additive import AdditiveCost
from fitness.blocks import FloatArray, Parts, tabulate
from supernet.errors import UserError
from supernet.files import read_text
from supernet.layers import LayerTable
from supernet.space import SearchSpace

FORMAT = "fedpareto-latency-table"
VERSION = 1

#: The names of a part's choices, (choices,).
Names = NDArray[np.str_]


class LatencyTableError(UserError):
    """A latency table that cannot be read, lacks a block of the space, or has a time below 0."""


def block_names(space: SearchSpace) -> Parts[Names]:
    """Return the name of every choice of every part of a space."""
    return tabulate(space, [_names]).map(lambda figures: figures[0])


def read_latency(path: Path, space: SearchSpace, limit: float = math.inf) -> AdditiveCost:
    """Return the latency of the space's networks as an additive cost in milliseconds, at most ``limit``.

    Raises:
        LatencyTableError: the file is no table, lacks a block of the space, or a time is no number of at least 0.
        UserError: the file cannot be read.
    """
    times, names = _read_times(path), block_names(space)
    parts = [names.stem, *itertools.chain.from_iterable(names.blocks), names.head]
    wanted = sorted({str(name) for part in parts for name in part})
    missing = [name for name in wanted if name not in times]
    if missing:
        raise LatencyTableError(
            f"{path} lacks {len(missing):,} of the {len(wanted):,} blocks of {space.name}, such as {missing[0]!r}; "
            "measure them on the device and add them"
        )
    for name in wanted:
        time = times[name]
        if not isinstance(time, int | float) or isinstance(time, bool) or not 0 <= time <= sys.float_info.max:
            raise LatencyTableError(f"{path}: the time of {name!r} is {time!r}; it must be a number of at least 0")

    def column(part: Names) -> FloatArray:
        return np.array([times[str(name)] for name in part], dtype=np.float64)

    return AdditiveCost("latency", names.map(column), limit, "ms")


def _read_times(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise LatencyTableError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LatencyTableError(f'{path} is not a latency table: it lacks "format": "{FORMAT}"')
    if content.get("version") != VERSION:
        raise LatencyTableError(f"{path} has version {content.get('version')}; this program reads {VERSION}")
    times = content.get("blocks")
    if not isinstance(times, dict):
        raise LatencyTableError(f"{path}: blocks must be an object of names and milliseconds, found {times!r:.60}")
    return times


def _names(table: LayerTable) -> Names:
    """Return the name of each of N blocks: its layers, (N,)."""
    kinds = [" ".join(filter(None, (layer.kind, layer.activation, "norm" * layer.norm))) for layer in table.layers]
    names = []
    for n in range(table.active.shape[1]):
        layers = [
            f"{kinds[row]} {table.c_in[row, n]}>{table.c_out[row, n]} k{table.kernel[row, n]} g{table.groups[row, n]} "
            f"s{table.layers[row].stride} @{table.h_in[row, n]}"
            for row in np.flatnonzero(table.active[:, n])
        ]
        names.append(" + ".join(layers))
    return np.array(names)
