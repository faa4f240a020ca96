"""Names of blocks in latency tables: a block is named by its layers, so a table serves every space with such blocks.

A layer reads ``conv relu 16>24 k3 g16 s2 @32``: kind, activation, channels, kernel side, groups, stride and input side
in pixels; layers are joined by `` + ``. A norm is named, ``gn``, where it is a GroupNorm: on a device a BatchNorm is
folded into the convolution before it, and costs what none does. A stem and a head are blocks, too.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from fedpareto.fitness.part_tables import Parts, tabulate
from fedpareto.supernet.layer_table import LayerTable
from fedpareto.supernet.space import Norm, SearchSpace

#: The names of a part's choices, (choices,).
Names = NDArray[np.str_]


def block_names(space: SearchSpace) -> Parts[Names]:
    """Return the name of every choice of every part of a space."""
    return tabulate(space, [lambda table: _names(table, space.norm)]).map(lambda figures: figures[0])


def distinct_names(names: Parts[Names]) -> list[str]:
    """Return every name once, in order."""
    parts = (names.stem, *itertools.chain.from_iterable(names.blocks), names.head)
    return sorted({str(name) for part in parts for name in part})


def _names(table: LayerTable, norm: Norm) -> Names:
    """Return the name of each of N blocks, (N,)."""
    marks = [(layer.kind, layer.activation, "gn" * (layer.norm and norm == "group")) for layer in table.layers]
    kinds = [" ".join(filter(None, words)) for words in marks]
    names = []
    for n in range(table.active.shape[1]):
        layers = [
            f"{kinds[row]} {table.c_in[row, n]}>{table.c_out[row, n]} k{table.kernel[row, n]} g{table.groups[row, n]} "
            f"s{table.layers[row].stride} @{table.h_in[row, n]}"
            for row in np.flatnonzero(table.active[:, n])
        ]
        names.append(" + ".join(layers))
    return np.array(names)
