"""Pointwise (1×1) convolutions: products of matrices whose rows are pixels.

A panel of some rows is worked on while it is in the first caches: the input is normalised and activated there, the
product is made, and the results are summed for the norm that follows.
"""

from typing import Any, NamedTuple

from numba import njit
from numba.extending import intrinsic

from fedpareto.training.kernels.activations import PLAIN
from fedpareto.training.kernels.compiled import compiled
from fedpareto.training.kernels.normalisation import PANEL
from fedpareto.training.kernels.rows import (
    activate_panel,
    differentiate_panel,
    flush,
    set_mean,
    sum_gradient_panel,
    sum_rows,
)
from fedpareto.training.kernels.vectors import (
    FLOAT_BYTES,
    Builder,
    Value,
    broadcast,
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

_EIGHT, _THREE, _TWO, _ONE = size(8), size(3), size(2), size(1)


class Forward(NamedTuple):
    """Addresses of a forward pass: x with its coefficients, weights (c_in, c_out), y, scratch (PANEL, c_in), sums of y.

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
    sums: int
    totals: int


class Backward(NamedTuple):
    """Addresses of a backward pass: a gradient with y, x with its coefficients, weights (c_out, c_in), and results.

    ``dx`` may be 0. ``dweight`` is added to; it has the form of the weights or of their transpose, the one with longer
    rows. ``scratch`` is (PANEL, c_in + c_out). Sums are those for x's own norm, unless its activation is PLAIN.
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
    sums: int
    totals: int


@intrinsic
def _multiply(
    context: Any, lanes: Any, vectors: Any, rows: Any,
    a: Any, a_step: Any, weight: Any, weight_step: Any, inner: Any, out: Any, out_step: Any,
) -> Any:  # fmt: skip
    """Write a tile of a product: ``rows`` rows of ``vectors`` vectors."""
    del context

    def build(
        builder: Builder, _lanes: Value, _vectors: Value, _rows: Value,
        a: Value, a_step: Value, weight: Value, weight_step: Value, inner: Value, out: Value, out_step: Value,
    ) -> None:  # fmt: skip
        zero = constant(lanes.count, 0.0)
        sums = [[register(builder, zero) for _ in range(vectors.count)] for _ in range(rows.count)]
        starts = [moved(builder, a, integer(row), a_step) for row in range(rows.count)]
        with repeated(builder, inner) as loop:
            line = moved(builder, weight, loop.index, weight_step)
            values = [load(builder, line, lanes.count, vector * lanes.count) for vector in range(vectors.count)]
            for start, row in zip(starts, sums, strict=True):
                single = broadcast(builder, moved(builder, start, loop.index, integer(FLOAT_BYTES)), lanes.count)
                for value, total in zip(values, row, strict=True):
                    builder.store(multiply_add(builder, single, value, builder.load(total)), total)
        for number, row in enumerate(sums):
            place = moved(builder, out, integer(number), out_step)
            for vector, total in enumerate(row):
                store(builder, builder.load(total), place, vector * lanes.count)

    return intrinsic_of(build, lanes, vectors, rows, a, a_step, weight, weight_step, inner, out, out_step)


@intrinsic
def _add_outer(
    context: Any, lanes: Any, vectors: Any, singles: Any,
    wide: Any, wide_step: Any, narrow: Any, narrow_step: Any, rows: Any, totals: Any, totals_step: Any,
) -> Any:  # fmt: skip
    """Add to a tile of narrowᵀ·wide: ``singles`` rows of ``vectors`` vectors."""
    del context

    def build(
        builder: Builder, _lanes: Value, _vectors: Value, _singles: Value,
        wide: Value, wide_step: Value, narrow: Value, narrow_step: Value,
        rows: Value, totals: Value, totals_step: Value,
    ) -> None:  # fmt: skip
        zero = constant(lanes.count, 0.0)
        sums = [[register(builder, zero) for _ in range(vectors.count)] for _ in range(singles.count)]
        with repeated(builder, rows) as loop:
            line = moved(builder, wide, loop.index, wide_step)
            values = [load(builder, line, lanes.count, vector * lanes.count) for vector in range(vectors.count)]
            start = moved(builder, narrow, loop.index, narrow_step)
            for number, row in enumerate(sums):
                single = broadcast(builder, builder.add(start, integer(number * FLOAT_BYTES)), lanes.count)
                for value, total in zip(values, row, strict=True):
                    builder.store(multiply_add(builder, single, value, builder.load(total)), total)
        for number, row in enumerate(sums):
            place = moved(builder, totals, integer(number), totals_step)
            for vector, total in enumerate(row):
                before = load(builder, place, lanes.count, vector * lanes.count)
                store(builder, builder.fadd(before, builder.load(total)), place, vector * lanes.count)

    return intrinsic_of(build, lanes, vectors, singles, wide, wide_step, narrow, narrow_step, rows, totals, totals_step)


@njit(nogil=True)
def _multiply_columns(lanes, vectors, tile, a, a_step, weight, weight_step, inner, out, out_step, rows):
    whole = rows - rows % len(tile)
    for row in range(0, whole, len(tile)):
        _multiply(
            lanes, vectors, tile, a + row * a_step, a_step, weight, weight_step, inner, out + row * out_step, out_step
        )
    for row in range(whole, rows):
        _multiply(
            lanes, vectors, _ONE, a + row * a_step, a_step, weight, weight_step, inner, out + row * out_step, out_step
        )


@njit(nogil=True)
def _multiply_panel(lanes, tile, a, inner, weight, columns, out, rows):
    """Write a (rows, inner) times weight (inner, columns)."""
    a_step, step, vector = inner * FLOAT_BYTES, columns * FLOAT_BYTES, len(lanes) * FLOAT_BYTES
    left, at = columns, 0
    while left >= 3 * len(lanes):
        _multiply_columns(lanes, _THREE, tile, a, a_step, weight + at, step, inner, out + at, step, rows)
        left, at = left - 3 * len(lanes), at + 3 * vector
    if left >= 2 * len(lanes):
        _multiply_columns(lanes, _TWO, tile, a, a_step, weight + at, step, inner, out + at, step, rows)
        left, at = left - 2 * len(lanes), at + 2 * vector
    if left >= len(lanes):
        _multiply_columns(lanes, _ONE, tile, a, a_step, weight + at, step, inner, out + at, step, rows)
        left, at = left - len(lanes), at + vector
    if left > 0:
        _multiply_columns(_EIGHT, _ONE, tile, a, a_step, weight + at, step, inner, out + at, step, rows)


@njit(nogil=True)
def _add_outer_columns(lanes, vectors, tile, wide, wide_step, narrow, narrow_count, totals, rows):
    for single in range(0, narrow_count, len(tile)):
        at = single * FLOAT_BYTES
        _add_outer(
            lanes, vectors, tile, wide, wide_step, narrow + at, narrow_count * FLOAT_BYTES, rows,
            totals + single * wide_step, wide_step,
        )  # fmt: skip


@njit(nogil=True)
def _add_outer_panel(lanes, tile, wide, columns, narrow, narrow_count, totals, rows):
    """Add narrow (rows, narrow_count) transposed times wide (rows, columns) to totals (narrow_count, columns)."""
    step, vector = columns * FLOAT_BYTES, len(lanes) * FLOAT_BYTES
    left, at = columns, 0
    while left >= 3 * len(lanes):
        _add_outer_columns(lanes, _THREE, tile, wide + at, step, narrow, narrow_count, totals + at, rows)
        left, at = left - 3 * len(lanes), at + 3 * vector
    if left >= 2 * len(lanes):
        _add_outer_columns(lanes, _TWO, tile, wide + at, step, narrow, narrow_count, totals + at, rows)
        left, at = left - 2 * len(lanes), at + 2 * vector
    if left >= len(lanes):
        _add_outer_columns(lanes, _ONE, tile, wide + at, step, narrow, narrow_count, totals + at, rows)
        left, at = left - len(lanes), at + vector
    if left > 0:
        _add_outer_columns(_EIGHT, _ONE, tile, wide + at, step, narrow, narrow_count, totals + at, rows)


@compiled
def forward(lanes, tile, of, rows, inner):
    """Write y = activation(x)·weight of some rows, and sum it."""
    step_in, step, channels = inner * FLOAT_BYTES, rows.channels * FLOAT_BYTES, rows.channels
    for row in range(rows.first, rows.last, PANEL):
        count = min(PANEL, rows.last - row)
        x, y = of.x + row * step_in, of.y + row * step
        if of.activation != PLAIN:
            activate_panel(lanes, of.activation, x, of.coefficients, of.scratch, count, inner)
            x = of.scratch
        _multiply_panel(lanes, tile, x, inner, of.weight, channels, y, count)
        if of.totals != 0:
            if row == rows.first:
                sum_rows(lanes, y, of.shift, of.sums, count, channels)
                set_mean(lanes, of.sums, of.shift, count, channels)
            sum_rows(lanes, y, of.shift, of.sums, count, channels)
            flush(lanes, of.sums, of.totals, channels)
            flush(lanes, of.sums + step, of.totals + 2 * step, channels)


@compiled
def backward(lanes, tile, of, rows, inner):
    """Write dx of some rows, add to dweight, and add the sums for the norm of x."""
    step_in, step, channels = inner * FLOAT_BYTES, rows.channels * FLOAT_BYTES, rows.channels
    for row in range(rows.first, rows.last, PANEL):
        count = min(PANEL, rows.last - row)
        x, dy, dx = of.x + row * step_in, of.gradient + row * step, of.dx + row * step_in
        if of.activation != PLAIN:
            written = of.scratch + PANEL * step_in
            differentiate_panel(lanes, of.activation, dy, of.y + row * step, of.coefficients, written, count, channels)
            dy = written
        raw = x
        if of.activation_in != PLAIN:
            activate_panel(lanes, of.activation_in, x, of.coefficients_in, of.scratch, count, inner)
            x = of.scratch
        if channels >= inner:
            _add_outer_panel(lanes, tile, dy, channels, x, inner, of.dweight, count)
        else:
            _add_outer_panel(lanes, tile, x, inner, dy, channels, of.dweight, count)
        if of.dx != 0:
            _multiply_panel(lanes, tile, dy, channels, of.weight, inner, dx, count)
            if of.activation_in != PLAIN:
                sum_gradient_panel(lanes, of.activation_in, dx, raw, of.coefficients_in, of.sums, count, inner)
                flush(lanes, of.sums, of.totals, inner)
                flush(lanes, of.sums + step_in, of.totals + 2 * step_in, inner)
