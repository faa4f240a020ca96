"""Costs of architectures as column arithmetic on the layer table: MACs, parameters, activation memory."""

import numpy as np

from supernet.layers import LayerTable
from supernet.layouts import IntArray

BYTES_PER_VALUE = 4


def macs(table: LayerTable) -> IntArray:
    """Return the multiply–accumulates of one image, shape (N,).

    Counted: convolutions, squeeze-excite, classifier; not norm, activation and pooling.
    """
    counts: IntArray = np.einsum("ln,ln,ln->n", table.weights, table.h_out, table.h_out)
    return counts


def parameters(table: LayerTable) -> IntArray:
    """Return the trainable parameters, shape (N,): weights, norm weight and bias, biases."""
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
