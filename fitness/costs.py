"""Costs of architectures, computed from the layer table: MACs, parameters, activation memory and file size."""

from typing import Literal

import numpy as np

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.layer_table import WEIGHTED, LayerTable
from fedpareto.supernet.space import Norm

BYTES_PER_VALUE = 4

FilePrecision = Literal["fp32", "fp16", "int8"]

_WEIGHT_BYTES: dict[FilePrecision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

#: Bytes of an int8 channel: scale and zero point of its weights, its int32 bias, scale and zero point of the bias.
_INT8_CHANNEL_BYTES = 4 + 1 + 4 + 4 + 4

#: Nodes, names and small constants of one layer, by whether the file is int8 and by norm. Measured on exported
#: networks of both families: 270 to 324 bytes with BatchNorm, 575 to 588 with GroupNorm, 1156 to 1377 in int8. The
#: layer's share of the architecture in the metadata comes to that.
_LAYER_BYTES: dict[tuple[bool, Norm], int] = {
    (False, "batch"): 350,
    (False, "group"): 620,
    (False, "none"): 350,
    (True, "batch"): 1450,
    (True, "group"): 1450,
    (True, "none"): 1450,
}

#: Metadata without class names, and the graph's own fields: 1.3 kB of a run on CIFAR-10.
_METADATA_BYTES = 2000

#: Most bytes of a class's name in the metadata, with quotes and comma.
CLASS_NAME_BYTES = 24


def macs(table: LayerTable) -> IntArray:
    """Return the multiply–accumulates of one image, shape (N,).

    Counted: convolutions, squeeze-excite, classifier; not norm, activation and pooling.
    """
    counts: IntArray = np.einsum("ln,ln,ln->n", table.weights, table.h_out, table.h_out)
    return counts


def parameters(table: LayerTable) -> IntArray:
    """Return the trainable parameters, shape (N,): weights, weight and bias of norms, biases."""
    norm = np.array([2 * layer.norm + layer.bias for layer in table.layers], dtype=np.int64)
    counts: IntArray = table.weights.sum(axis=0) + np.einsum("l,ln,ln->n", norm, table.c_out, table.active)
    return counts


def peak_activation_bytes(table: LayerTable, batch: int = 1) -> IntArray:
    """Return the largest memory of live feature maps in an fp32 forward pass, shape (N,), in bytes.

    A layer needs its input, its output and the maps other layers still wait for (the input of a skip, the
    map a squeeze-excite scales). Norm and activation work in place; scaling and adding write a new map.
    """
    before = table.c_in * table.h_in * table.h_in
    after = table.c_out * table.h_out * table.h_out
    live: IntArray = (before + after + table.held) * table.active
    peak: IntArray = live.max(axis=0)
    return peak * (batch * BYTES_PER_VALUE)


def file_bytes(table: LayerTable, norm: Norm, precision: FilePrecision = "fp32") -> IntArray:
    """Return an upper bound on the bytes of the exported ONNX file, shape (N,), a few per cent above them.

    Counted: weights and biases with BatchNorm folded or GroupNorm's own values, scales and zero points of every output
    channel in int8, the graph's nodes, the metadata, and class names of ``CLASS_NAME_BYTES``. A sum over layers.
    """
    size, int8 = _WEIGHT_BYTES[precision], precision == "int8"
    normed, biased = (np.array([getattr(layer, name) for layer in table.layers]) for name in ("norm", "bias"))
    # BatchNorm becomes a bias; GroupNorm stays in fp32 in an int8 file.
    of_norm = (2 * (BYTES_PER_VALUE if int8 else size) if norm == "group" else size) * normed
    of_channel = of_norm + size * biased + _INT8_CHANNEL_BYTES * (int8 & np.isin(table.kind, WEIGHTED))
    of_channel += CLASS_NAME_BYTES * (biased & (table.kind == "linear"))
    of_layer = _LAYER_BYTES[int8, norm] + _METADATA_BYTES * (table.kind == "pool")
    total: IntArray = size * table.weights.sum(axis=0)
    total += ((of_channel[:, None] * table.c_out + of_layer[:, None]) * table.active).sum(axis=0)
    return total
