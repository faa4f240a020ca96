"""Convolutions of every channel by itself: forward, and both gradients in one pass.

One image's block of neighbouring channels is copied into scratch memory with a border of zeros, where it lies dense and in
the first caches. All sums are then made there, in registers, without a test for the border. Sums run over images, rows
and pixels in this order whatever the width of a vector is, and images are summed one by one: the bits depend on neither
the machine nor the block.
"""

from typing import Any, NamedTuple

from numba import njit
from numba.extending import intrinsic

from training.kernels.activations import PLAIN
from training.kernels.rows import add_gradient_sums, add_moments, differentiate_pixels, fill_pixels, mean_of
from training.kernels.vectors import (
    FLOAT_BYTES,
    Builder,
    Value,
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

#: Pixels of a block whose sums are made in float32.
_SUMMED = 1024

_EIGHT, _FOUR, _TWO, _ONE = size(8), size(4), size(2), size(1)


class Extent(NamedTuple):
    """Which images, and what shape they have before and after the convolution."""

    first: int
    last: int
    height: int
    width: int
    channels: int
    height_out: int
    width_out: int


class Forward(NamedTuple):
    """Addresses of x with what activates it, weights (kernel², channels), y, scratch, and of sums of y.

    ``activation`` is that of x, PLAIN for none. With ``totals`` 0 nothing is summed; see ``normalisation.Moments``.
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
    """Addresses of a gradient with y, of x with what activates it, of weights (kernel², channels), and of what is written.

    ``dx`` may be 0; ``dweight`` is added to. ``totals`` are those of x's own norm, unless its activation is PLAIN.
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
    """Return how many floats a scratch memory has: a bordered block, and one of eight channels that may be left."""
    return (lanes + 8) * (height + kernel - 1) * (width + kernel - 1)


@intrinsic
def _tile(  # noqa: PLR0913, PLR0917 - a microkernel has the arguments it has
    context: Any, lanes: Any, kernel: Any, stride: Any, tile: Any, flipped: Any,
    source: Any, source_row: Any, weight: Any, tap_step: Any, target: Any, pixel_step: Any,
) -> Any:  # fmt: skip
    """Write ``tile`` neighbouring outputs of a convolution; flipped with a size of 2."""
    del context
    k, s = kernel.count, stride.count

    def build(  # noqa: PLR0913, PLR0917
        builder: Builder, _lanes: Value, _kernel: Value, _stride: Value, _tile: Value, _flipped: Value,
        source: Value, source_row: Value, weight: Value, tap_step: Value, target: Value, pixel_step: Value,
    ) -> None:  # fmt: skip
        sums = [register(builder, constant(lanes.count, 0.0)) for _ in range(tile.count)]
        # The rows of a kernel are a loop, for code that is compiled in good time; what lies in a row is written out.
        with repeated(builder, integer(k)) as loop:
            first = builder.mul(loop.index, integer(k))
            taps = [builder.add(first, integer(z)) for z in range(k)]
            if flipped.count > 1:
                taps = [builder.sub(integer(k * k - 1), tap) for tap in taps]
            weights = [load(builder, moved(builder, weight, tap, tap_step), lanes.count) for tap in taps]
            line = moved(builder, source, loop.index, source_row)
            values = [builder.load(total) for total in sums]
            for place in range((tile.count - 1) * s + k):
                users = [out for out in range(tile.count) if 0 <= place - out * s < k]
                if users:
                    pixel = load(builder, line, lanes.count, place * lanes.count)
                for out in users:
                    values[out] = multiply_add(builder, pixel, weights[place - out * s], values[out])
            for total, value in zip(sums, values, strict=True):
                builder.store(value, total)
        for out, total in enumerate(sums):
            store(builder, builder.load(total), moved(builder, target, integer(out), pixel_step))

    return intrinsic_of(
        build, lanes, kernel, stride, tile, flipped, source, source_row, weight, tap_step, target, pixel_step
    )


@intrinsic
def _add_weight_gradient(  # noqa: PLR0913, PLR0917
    context: Any, lanes: Any, kernel: Any, stride: Any, rows: Any,
    x: Any, gradient: Any, row: Any, height: Any, width: Any, target: Any, tap_step: Any,
) -> Any:  # fmt: skip
    """Add to ``rows`` rows of a kernel what one image's block contributes; both blocks have rows of equal length."""
    del context
    taps = [(y, z) for y in range(rows.count) for z in range(kernel.count)]

    def build(  # noqa: PLR0913, PLR0917
        builder: Builder, _lanes: Value, _kernel: Value, _stride: Value, _rows: Value,
        x: Value, gradient: Value, row: Value, height: Value, width: Value, target: Value, tap_step: Value,
    ) -> None:  # fmt: skip
        sums = [register(builder, constant(lanes.count, 0.0)) for _ in taps]
        down = builder.mul(row, integer(stride.count))
        right = integer(stride.count * lanes.count * FLOAT_BYTES)
        with repeated(builder, height) as line:
            x_line, gradient_line = (moved(builder, start, line.index, down) for start in (x, gradient))
            with repeated(builder, width) as pixel:
                value = load(builder, moved(builder, gradient_line, pixel.index, right), lanes.count)
                corner = moved(builder, x_line, pixel.index, right)
                for total, (y, z) in zip(sums, taps, strict=True):
                    seen = load(builder, moved(builder, corner, integer(y), row), lanes.count, z * lanes.count)
                    builder.store(multiply_add(builder, value, seen, builder.load(total)), total)
        for tap, total in enumerate(sums):
            place = moved(builder, target, integer(tap), tap_step)
            store(builder, builder.fadd(load(builder, place, lanes.count), builder.load(total)), place)

    return intrinsic_of(build, lanes, kernel, stride, rows, x, gradient, row, height, width, target, tap_step)


@njit(nogil=True)
def _convolve(lanes, kernel, stride, flipped, source, row, weight, target, height, width, channels):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    """Write one block of outputs. The last tile of a row may lie over the one before it."""
    pixel = channels * FLOAT_BYTES
    step = len(stride) * len(lanes) * FLOAT_BYTES
    for y in range(height):
        line = source + y * len(stride) * row
        out = target + y * width * pixel
        if width >= 8:
            for x in range(0, width, 8):
                start = min(x, width - 8)
                _tile(lanes, kernel, stride, _EIGHT, flipped, line + start * step, row, weight, pixel, out + start * pixel, pixel)
        elif width >= 4:
            for x in range(0, width, 4):
                start = min(x, width - 4)
                _tile(lanes, kernel, stride, _FOUR, flipped, line + start * step, row, weight, pixel, out + start * pixel, pixel)
        elif width >= 2:
            for x in range(0, width, 2):
                start = min(x, width - 2)
                _tile(lanes, kernel, stride, _TWO, flipped, line + start * step, row, weight, pixel, out + start * pixel, pixel)
        else:
            _tile(lanes, kernel, stride, _ONE, flipped, line, row, weight, pixel, out, pixel)


@njit(nogil=True)
def _fill(lanes, border, number, image, coefficients, scratch, row, extent):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    """Copy one block of an image, activated, into the middle of its scratch memory."""
    pixel, vector = extent.channels * FLOAT_BYTES, len(lanes) * FLOAT_BYTES
    for y in range(extent.height):
        target = scratch + (y + border) * row + border * vector
        fill_pixels(lanes, number, image + y * extent.width * pixel, coefficients, pixel, target, extent.width, vector)


@njit(nogil=True)
def _forward_block(lanes, kernel, stride, of, extent, image, channel, scratch):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    row = (extent.width + len(kernel) - 1) * len(lanes) * FLOAT_BYTES
    at, pixel = channel * FLOAT_BYTES, extent.channels * FLOAT_BYTES
    pixels = extent.height_out * extent.width_out
    x, y = of.x + image * extent.height * extent.width * pixel + at, of.y + image * pixels * pixel + at
    _fill(lanes, len(kernel) // 2, of.activation, x, of.coefficients + at, scratch, row, extent)
    _convolve(
        lanes, kernel, stride, _ONE, scratch, row, of.weight + at, y, extent.height_out, extent.width_out, extent.channels
    )  # fmt: skip
    if of.totals != 0:
        if image == extent.first:
            mean_of(lanes, y, of.shift + at, pixels, pixel)
        for first in range(0, pixels, _SUMMED):
            count = min(_SUMMED, pixels - first)
            add_moments(lanes, y + first * pixel, of.shift + at, of.totals + 2 * at, count, pixel)


@njit(nogil=True)
def forward(lanes, kernel, stride, of, extent):  # type: ignore[no-untyped-def]
    """Write y of some images, and sum it."""
    bordered = (extent.height + len(kernel) - 1) * (extent.width + len(kernel) - 1)
    rest = of.scratch + bordered * len(lanes) * FLOAT_BYTES
    for image in range(extent.first, extent.last):
        channel = 0
        while channel + len(lanes) <= extent.channels:
            _forward_block(lanes, kernel, stride, of, extent, image, channel, of.scratch)
            channel += len(lanes)
        if channel < extent.channels:
            _forward_block(_EIGHT, kernel, stride, of, extent, image, channel, rest)


@njit(nogil=True)
def _add_kernel_gradient(lanes, kernel, stride, rows, rest, x, gradient, row, extent, dweight):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    """Add one block's weight gradient, ``rows`` rows of the kernel at once and then the ``rest``."""
    pixel = extent.channels * FLOAT_BYTES
    whole = len(kernel) - len(kernel) % len(rows)
    for first in range(0, whole, len(rows)):
        _add_weight_gradient(
            lanes, kernel, stride, rows, x + first * row, gradient, row, extent.height_out, extent.width_out,
            dweight + first * len(kernel) * pixel, pixel,
        )  # fmt: skip
    if whole < len(kernel):
        _add_weight_gradient(
            lanes, kernel, stride, rest, x + whole * row, gradient, row, extent.height_out, extent.width_out,
            dweight + whole * len(kernel) * pixel, pixel,
        )  # fmt: skip


@njit(nogil=True)
def _backward_block(lanes, kernel, stride, rows, rest, of, extent, image, channel, scratch, scratch_gradient):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    border, vector = len(kernel) // 2, len(lanes) * FLOAT_BYTES
    row = (extent.width + len(kernel) - 1) * vector
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
            inner + y * len(stride) * row, extent.width_out, len(stride) * vector,
        )  # fmt: skip
    _add_kernel_gradient(lanes, kernel, stride, rows, rest, scratch, inner, row, extent, of.dweight + at)
    if of.dx != 0:
        dx = of.dx + start_in
        _convolve(
            lanes, kernel, _ONE, _TWO, scratch_gradient, row, of.weight + at, dx, extent.height, extent.width, extent.channels
        )  # fmt: skip
        if of.activation_in != PLAIN:
            for first in range(0, pixels, _SUMMED):
                offset = first * pixel
                add_gradient_sums(
                    lanes, of.activation_in, dx + offset, of.x + start_in + offset, of.coefficients_in + at,
                    of.totals + 2 * at, min(_SUMMED, pixels - first), pixel,
                )  # fmt: skip


@njit(nogil=True)
def backward(lanes, kernel, stride, rows, rest, of, extent):  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    """Write dx of some images, add to dweight, and sum what the norm of x asks for.

    ``rows`` rows of a kernel are summed at once, and its last ones ``rest`` at once.
    """
    bordered = (extent.height + len(kernel) - 1) * (extent.width + len(kernel) - 1) * len(lanes) * FLOAT_BYTES
    for image in range(extent.first, extent.last):
        channel = 0
        while channel + len(lanes) <= extent.channels:
            _backward_block(
                lanes, kernel, stride, rows, rest, of, extent, image, channel, of.scratch, of.scratch_gradient
            )  # fmt: skip
            channel += len(lanes)
        if channel < extent.channels:
            _backward_block(
                _EIGHT, kernel, stride, rows, rest, of, extent, image, channel,
                of.scratch + bordered, of.scratch_gradient + bordered,
            )  # fmt: skip
