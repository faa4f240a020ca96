"""Depthwise convolutions: the forward pass, and both gradients in one backward pass.

One image's block of neighbouring channels is copied into scratch memory with a border of zeros, where it is dense and
in the first caches. All sums are then made there, in registers, without a test for the border. A channel's sums run
over images, rows and pixels in this order, whatever the width of a vector is.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from numba import njit
from numba.extending import intrinsic

from fedpareto.training.kernels.activations import PLAIN
from fedpareto.training.kernels.blocks import add_gradient_sums, add_moments, differentiate_pixels, fill_pixels, mean_of
from fedpareto.training.kernels.compiled import compiled
from fedpareto.training.kernels.vectors import (
    FLOAT_BYTES,
    Builder,
    Value,
    cases,
    constant,
    integer,
    intrinsic_of,
    load,
    moved,
    multiply_add,
    register,
    repeated,
    size,
    store,
)

#: Sides and strides that there are instructions for.
KERNELS, STRIDES = (3, 5, 7), (1, 2)

#: Outputs that are summed side by side: the widest of these that fits into a row.
_TILES = (8, 4, 1)

#: Pixels of a block whose sums are made in float32.
_SUMMED = 1024

_EIGHT, _TWO, _ONE = size(8), size(2), size(1)


class Extent(NamedTuple):
    """Extent of a convolution: its images, its kernel and stride, and the shapes of images before and after it."""

    first: int
    last: int
    kernel: int
    stride: int
    height: int
    width: int
    channels: int
    height_out: int
    width_out: int


class Forward(NamedTuple):
    """Addresses of a forward pass: x with its coefficients, weights (kernel², channels), y, scratch, and sums of y.

    ``activation`` is the activation of x, PLAIN for none. With ``totals`` 0 nothing is summed; see
    ``normalisation.Moments``.
    """

    activation: int
    x: int
    coefficients: int
    weight: int
    y: int
    scratch: int
    shift: int
    totals: int


class Backward(NamedTuple):
    """Addresses of a backward pass: a gradient with y, x with its coefficients, weights (kernel², channels), results.

    ``dx`` may be 0; ``dweight`` is added to. ``totals`` are sums for x's own norm, unless its activation is PLAIN.
    """

    activation: int
    gradient: int
    y: int
    coefficients: int
    activation_in: int
    x: int
    coefficients_in: int
    weight: int
    dx: int
    dweight: int
    scratch: int
    scratch_gradient: int
    totals: int


def scratch_floats(lanes: int, height: int, width: int, kernel: int) -> int:
    """Return the number of floats of scratch memory: a bordered block, and one for eight channels that may be left."""
    return (lanes + 8) * (height + kernel - 1) * (width + kernel - 1)


@intrinsic
def _convolve(
    context: Any, lanes: Any, flipped: Any, kernel: Any, stride: Any,
    source: Any, row: Any, weight: Any, target: Any, height: Any, width: Any, channels: Any,
) -> Any:  # fmt: skip
    """Write one block of a convolution of a bordered source; with two of ``flipped`` its kernel is turned around."""
    del context

    def build(builder: Builder, _lanes: Value, _flipped: Value, kernel: Value, stride: Value, *place: Value) -> None:
        for k, s in itertools.product(KERNELS, (1,) if flipped.count > 1 else STRIDES):
            with cases(builder, (kernel, k), (stride, s)):
                _convolve_as(builder, _Form(lanes.count, k, s, flipped.count > 1), *place)

    return intrinsic_of(
        build, lanes, flipped, kernel, stride, source, row, weight, target, height, width, channels
    )  # fmt: skip


class _Form(NamedTuple):
    """Form of a convolution, which its instructions are written for."""

    lanes: int
    kernel: int
    stride: int
    flipped: bool


def _convolve_as(
    builder: Builder, form: _Form,
    source: Value, row: Value, weight: Value, target: Value, height: Value, width: Value, channels: Value,
) -> None:  # fmt: skip
    """Write all rows in the widest tiles that fit; the last tile of a row may overlap the one before it."""
    pixel = builder.mul(channels, integer(FLOAT_BYTES))
    step = integer(form.stride * form.lanes * FLOAT_BYTES)
    with repeated(builder, height) as line:
        above = moved(builder, source, builder.mul(line.index, integer(form.stride)), row)
        below = moved(builder, target, builder.mul(line.index, width), pixel)
        narrower = None
        for tile in _TILES:
            fits = builder.icmp_signed(">=", width, integer(tile))
            chosen = fits if narrower is None else builder.and_(fits, narrower)
            with builder.if_then(chosen):
                count = builder.sdiv(builder.add(width, integer(tile - 1)), integer(tile))
                last = builder.sub(width, integer(tile))
                with repeated(builder, count) as loop:
                    wanted = builder.mul(loop.index, integer(tile))
                    first = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
                    start, end = moved(builder, above, first, step), moved(builder, below, first, pixel)
                    _tile(builder, form, tile, start, row, weight, end, pixel)
            narrower = builder.icmp_signed("<", width, integer(tile))


def _tile(
    builder: Builder, form: _Form, tile: int, source: Value, row: Value, weight: Value, target: Value, pixel: Value
) -> None:
    """Write neighbouring outputs. The rows of the kernel are a loop, for less code; a row of it is written out."""
    k, lanes = form.kernel, form.lanes
    sums = [register(builder, constant(lanes, 0.0)) for _ in range(tile)]
    with repeated(builder, integer(k)) as loop:
        first = builder.mul(loop.index, integer(k))
        taps = [builder.add(first, integer(x)) for x in range(k)]
        if form.flipped:
            taps = [builder.sub(integer(k * k - 1), tap) for tap in taps]
        weights = [load(builder, moved(builder, weight, tap, pixel), lanes) for tap in taps]
        line = moved(builder, source, loop.index, row)
        values = [builder.load(total) for total in sums]
        for place in range((tile - 1) * form.stride + k):
            users = [out for out in range(tile) if 0 <= place - out * form.stride < k]
            seen = load(builder, line, lanes, place * lanes) if users else None
            for out in users:
                values[out] = multiply_add(builder, seen, weights[place - out * form.stride], values[out])
        for total, value in zip(sums, values, strict=True):
            builder.store(value, total)
    for out, total in enumerate(sums):
        store(builder, builder.load(total), moved(builder, target, integer(out), pixel))


@intrinsic
def _add_kernel_gradient(
    context: Any, lanes: Any, registers: Any, kernel: Any, stride: Any,
    x: Any, gradient: Any, row: Any, height: Any, width: Any, target: Any, channels: Any,
) -> Any:  # fmt: skip
    """Add the contribution of one image's block to a kernel's gradient; both blocks have rows of equal length.

    As many rows of the kernel are summed at once as half the ``registers`` can hold.
    """
    del context

    def build(
        builder: Builder, _lanes: Value, _registers: Value, kernel: Value, stride: Value, x: Value, *place: Value
    ) -> None:
        gradient, row, height, width, target, channels = place
        pixel = builder.mul(channels, integer(FLOAT_BYTES))
        for k, s in itertools.product(KERNELS, STRIDES):
            with cases(builder, (kernel, k), (stride, s)):
                at_once = max(1, min(k, registers.count // 2 // k))
                for first in range(0, k, at_once):
                    taps = [(y, z) for y in range(first, min(k, first + at_once)) for z in range(k)]
                    start = moved(builder, target, integer(first * k), pixel)
                    _add_taps(
                        builder, _Form(lanes.count, k, s, False), taps, x, gradient, row, height, width, start, pixel
                    )

    return intrinsic_of(
        build, lanes, registers, kernel, stride, x, gradient, row, height, width, target, channels
    )  # fmt: skip


def _add_taps(
    builder: Builder, form: _Form, taps: Sequence[tuple[int, int]],
    x: Value, gradient: Value, row: Value, height: Value, width: Value, target: Value, pixel: Value,
) -> None:  # fmt: skip
    lanes = form.lanes
    sums = [register(builder, constant(lanes, 0.0)) for _ in taps]
    down, right = builder.mul(row, integer(form.stride)), integer(form.stride * lanes * FLOAT_BYTES)
    with repeated(builder, height) as line:
        x_line, gradient_line = (moved(builder, start, line.index, down) for start in (x, gradient))
        with repeated(builder, width) as place:
            value = load(builder, moved(builder, gradient_line, place.index, right), lanes)
            corner = moved(builder, x_line, place.index, right)
            for total, (y, z) in zip(sums, taps, strict=True):
                seen = load(builder, moved(builder, corner, integer(y), row), lanes, z * lanes)
                builder.store(multiply_add(builder, value, seen, builder.load(total)), total)
    for tap, total in enumerate(sums):
        place_of_tap = moved(builder, target, integer(tap), pixel)
        store(builder, builder.fadd(load(builder, place_of_tap, lanes), builder.load(total)), place_of_tap)


@njit(nogil=True)
def _fill(lanes, border, number, image, coefficients, scratch, row, extent):
    """Copy one block of an image, activated, into the middle of its scratch memory."""
    pixel, vector = extent.channels * FLOAT_BYTES, len(lanes) * FLOAT_BYTES
    for y in range(extent.height):
        target = scratch + (y + border) * row + border * vector
        fill_pixels(lanes, number, image + y * extent.width * pixel, coefficients, pixel, target, extent.width, vector)


@njit(nogil=True)
def _forward_block(lanes, of, extent, image, channel, scratch):
    row = (extent.width + extent.kernel - 1) * len(lanes) * FLOAT_BYTES
    at, pixel = channel * FLOAT_BYTES, extent.channels * FLOAT_BYTES
    pixels = extent.height_out * extent.width_out
    x, y = of.x + image * extent.height * extent.width * pixel + at, of.y + image * pixels * pixel + at
    _fill(lanes, extent.kernel // 2, of.activation, x, of.coefficients + at, scratch, row, extent)
    _convolve(
        lanes, _ONE, extent.kernel, extent.stride, scratch, row, of.weight + at, y,
        extent.height_out, extent.width_out, extent.channels,
    )  # fmt: skip
    if of.totals != 0:
        if image == extent.first:
            mean_of(lanes, y, of.shift + at, pixels, pixel)
        for first in range(0, pixels, _SUMMED):
            count = min(_SUMMED, pixels - first)
            add_moments(lanes, y + first * pixel, of.shift + at, of.totals + 2 * at, count, pixel)


@compiled
def forward(lanes, of, extent):
    """Write y of some images, and sum it."""
    bordered = (extent.height + extent.kernel - 1) * (extent.width + extent.kernel - 1)
    rest = of.scratch + bordered * len(lanes) * FLOAT_BYTES
    for image in range(extent.first, extent.last):
        channel = 0
        while channel + len(lanes) <= extent.channels:
            _forward_block(lanes, of, extent, image, channel, of.scratch)
            channel += len(lanes)
        if channel < extent.channels:
            _forward_block(_EIGHT, of, extent, image, channel, rest)


@njit(nogil=True)
def _backward_block(lanes, registers, of, extent, image, channel, scratch, scratch_gradient):
    border, vector = extent.kernel // 2, len(lanes) * FLOAT_BYTES
    row = (extent.width + extent.kernel - 1) * vector
    at, pixel = channel * FLOAT_BYTES, extent.channels * FLOAT_BYTES
    pixels = extent.height * extent.width
    start_in = image * pixels * pixel + at
    _fill(lanes, border, of.activation_in, of.x + start_in, of.coefficients_in + at, scratch, row, extent)
    # Between the gradients of a strided convolution are zeros.
    inner = scratch_gradient + border * (row + vector)
    for y in range(extent.height_out):
        offset = (image * extent.height_out + y) * extent.width_out * pixel + at
        differentiate_pixels(
            lanes, of.activation, of.gradient + offset, of.y + offset, of.coefficients + at, pixel,
            inner + y * extent.stride * row, extent.width_out, extent.stride * vector,
        )  # fmt: skip
    _add_kernel_gradient(
        lanes, registers, extent.kernel, extent.stride, scratch, inner, row,
        extent.height_out, extent.width_out, of.dweight + at, extent.channels,
    )  # fmt: skip
    if of.dx != 0:
        dx = of.dx + start_in
        _convolve(
            lanes, _TWO, extent.kernel, 1, scratch_gradient, row, of.weight + at, dx,
            extent.height, extent.width, extent.channels,
        )  # fmt: skip
        if of.activation_in != PLAIN:
            for first in range(0, pixels, _SUMMED):
                offset = first * pixel
                add_gradient_sums(
                    lanes, of.activation_in, dx + offset, of.x + start_in + offset, of.coefficients_in + at,
                    of.totals + 2 * at, min(_SUMMED, pixels - first), pixel,
                )  # fmt: skip


@compiled
def backward(lanes, registers, of, extent):
    """Write dx of some images, add to dweight, and add the sums for the norm of x."""
    bordered = (extent.height + extent.kernel - 1) * (extent.width + extent.kernel - 1) * len(lanes) * FLOAT_BYTES
    for image in range(extent.first, extent.last):
        channel = 0
        while channel + len(lanes) <= extent.channels:
            _backward_block(
                lanes, registers, of, extent, image, channel, of.scratch, of.scratch_gradient
            )  # fmt: skip
            channel += len(lanes)
        if channel < extent.channels:
            _backward_block(
                _EIGHT, registers, of, extent, image, channel,
                of.scratch + bordered, of.scratch_gradient + bordered,
            )  # fmt: skip
