"""Batch normalisation of whole tensors: the moments of a batch, the coefficients, the forward and backward passes.

Formulas and names are those of ``formulas.py``. Sums are made in float32 over some rows and then in float64. A mean of
the first values is subtracted from all values before, so that a large mean costs no digits.
"""

import math
from typing import NamedTuple

from numba import carray

from fedpareto.training.kernels.compiled import compiled
from fedpareto.training.kernels.rows import (
    activate_panel,
    differentiate_panel,
    flush,
    set_mean,
    sum_gradient_panel,
    sum_rows,
)
from fedpareto.training.kernels.vectors import FLOAT_BYTES, as_doubles, as_floats

#: Rows of pixels whose sums are made in float32.
PANEL = 64


class Rows(NamedTuple):
    """Range of pixels, and their number of channels."""

    first: int
    last: int
    channels: int


class Moments(NamedTuple):
    """Addresses of moments: values, their shift (channels), float sums (2, channels), and doubles (2, channels)."""

    y: int
    shift: int
    sums: int
    totals: int


class Finish(NamedTuple):
    """Addresses of the threads' sums, of γ and β, of the coefficients, and of the gradients of γ and β.

    Every thread has (4, channels) doubles: (2, channels) totals, then a shift and two sums as floats.
    """

    sums: int
    weight: int
    bias: int
    coefficients: int
    dweight: int
    dbias: int


class Forward(NamedTuple):
    """Addresses of a forward pass: the values to normalise, the coefficients, and the result."""

    y: int
    coefficients: int
    out: int


class Backward(NamedTuple):
    """Addresses of a backward pass: the result's gradient, y and the coefficients, sums as in ``Moments``, and dy."""

    gradient: int
    y: int
    coefficients: int
    sums: int
    totals: int
    dy: int


@compiled
def moments(lanes, of, rows):
    """Set the shift to a mean of the first pixels; add all pixels less that, and the squares, to the totals."""
    step, channels = rows.channels * FLOAT_BYTES, rows.channels
    if rows.last <= rows.first:
        return
    first = min(PANEL, rows.last - rows.first)
    sum_rows(lanes, of.y + rows.first * step, of.shift, of.sums, first, channels)
    set_mean(lanes, of.sums, of.shift, first, channels)
    for row in range(rows.first, rows.last, PANEL):
        count = min(PANEL, rows.last - row)
        sum_rows(lanes, of.y + row * step, of.shift, of.sums, count, channels)
        flush(lanes, of.sums, of.totals, channels)
        flush(lanes, of.sums + step, of.totals + 2 * step, channels)


@compiled
def finish_moments(of, rows, threads, unit, epsilon):
    """Write s, t, μ and 1/√(σ²+ε) of all pixels from the sums of the threads (Chan, Golub, LeVeque 1983).

    Thread i has summed the pixels from ``unit``·⌊images·i/threads⌋ on; of n images, each ``unit`` pixels.
    """
    channels, images = rows.channels, (rows.last - rows.first) // unit
    totals = carray(as_doubles(of.sums), (threads, 4, channels))
    floats = carray(as_floats(of.sums), (threads, 8, channels))
    weight, bias = carray(as_floats(of.weight), channels), carray(as_floats(of.bias), channels)
    written = carray(as_floats(of.coefficients), (6, channels))
    for channel in range(channels):
        mean, squares, seen = 0.0, 0.0, 0
        for thread in range(threads):
            count = unit * (images * (thread + 1) // threads - images * thread // threads)
            if count > 0:
                part = totals[thread, 0, channel] / count
                other = floats[thread, 4, channel] + part
                squares += totals[thread, 1, channel] - part * totals[thread, 0, channel]
                squares += (other - mean) ** 2 * (seen * count / (seen + count))
                mean += (other - mean) * (count / (seen + count))
                seen += count
        inverse = 1.0 / math.sqrt(max(squares, 0.0) / seen + epsilon)
        scale = weight[channel] * inverse
        written[0, channel], written[1, channel] = scale, bias[channel] - scale * mean
        written[2, channel], written[5, channel] = mean, inverse


@compiled
def finish_gradients(of, rows, threads):
    """Write b and c, dγ and dβ."""
    channels, count = rows.channels, rows.last - rows.first
    totals = carray(as_doubles(of.sums), (threads, 4, channels))
    written = carray(as_floats(of.coefficients), (6, channels))
    dweight, dbias = carray(as_floats(of.dweight), channels), carray(as_floats(of.dbias), channels)
    for channel in range(channels):
        first, second = 0.0, 0.0
        for thread in range(threads):
            first += totals[thread, 0, channel]
            second += totals[thread, 1, channel]
        scale, inverse = written[0, channel], written[5, channel]
        written[3, channel] = -scale * second * inverse * inverse / count
        written[4, channel] = -scale * first / count
        dweight[channel], dbias[channel] = second * inverse, first


@compiled
def activate(lanes, activation, of, rows):
    """Write activation(s·y + t)."""
    offset = rows.first * rows.channels * FLOAT_BYTES
    activate_panel(
        lanes, activation, of.y + offset, of.coefficients, of.out + offset, rows.last - rows.first, rows.channels
    )


@compiled
def sum_gradients(lanes, activation, of, rows):
    """Add dz and dz·(y − μ) to the totals."""
    step, channels = rows.channels * FLOAT_BYTES, rows.channels
    for row in range(rows.first, rows.last, PANEL):
        count, at = min(PANEL, rows.last - row), row * step
        sum_gradient_panel(lanes, activation, of.gradient + at, of.y + at, of.coefficients, of.sums, count, channels)
        flush(lanes, of.sums, of.totals, channels)
        flush(lanes, of.sums + step, of.totals + 2 * step, channels)


@compiled
def differentiate(lanes, activation, of, rows):
    """Write dy, which may have the address of y."""
    at = rows.first * rows.channels * FLOAT_BYTES
    differentiate_panel(
        lanes, activation, of.gradient + at, of.y + at, of.coefficients, of.dy + at,
        rows.last - rows.first, rows.channels,
    )  # fmt: skip
