"""Norm and activation on a few rows of pixels of all channels, few enough for the caches; see ``formulas.py``."""

from collections.abc import Sequence
from typing import Any

from numba import njit
from numba.extending import intrinsic

from fedpareto.training.kernels.activations import HSWISH, NONE, RELU, activated
from fedpareto.training.kernels.formulas import coefficients_at, gradient_and_deviation, gradient_of
from fedpareto.training.kernels.vectors import (
    FLOAT_BYTES,
    Builder,
    Value,
    add_to_doubles,
    constant,
    divided,
    integer,
    intrinsic_of,
    load,
    moved,
    multiply_add,
    over_channels,
    over_rows,
    size,
    store,
)

_NONE, _RELU, _HSWISH = size(NONE), size(RELU), size(HSWISH)


@intrinsic
def _activate_rows(
    context: Any, lanes: Any, activation: Any, y: Any, coefficients: Any, out: Any, rows: Any, channels: Any
) -> Any:
    """Write the activations of some rows."""
    del context

    def build(builder: Builder, _lanes: Value, _activation: Value, y: Value, *rest: Value) -> None:
        coefficients, out, rows, channels = rest

        def block(width: int, count: int, offset: Value, at: Value) -> None:
            step = builder.mul(channels, integer(FLOAT_BYTES))
            s, t = coefficients_at(builder, width, builder.add(coefficients, at), step)[:2]
            for row in range(count):
                place = moved(builder, offset, integer(row), step)
                z = multiply_add(builder, load(builder, builder.add(y, place), width), s, t)
                store(builder, activated(builder, activation.count, z), builder.add(out, place))

        over_rows(builder, lanes.count, rows, channels, block)

    return intrinsic_of(build, lanes, activation, y, coefficients, out, rows, channels)


@intrinsic
def _differentiate_rows(
    context: Any,
    lanes: Any,
    activation: Any,
    gradient: Any,
    y: Any,
    coefficients: Any,
    dy: Any,
    rows: Any,
    channels: Any,
) -> Any:
    """Write dy of some rows."""
    del context

    def build(builder: Builder, _lanes: Value, _activation: Value, gradient: Value, *rest: Value) -> None:
        y, coefficients, dy, rows, channels = rest

        def block(width: int, count: int, offset: Value, at: Value) -> None:
            step = builder.mul(channels, integer(FLOAT_BYTES))
            kept = coefficients_at(builder, width, builder.add(coefficients, at), step)
            for row in range(count):
                place = moved(builder, offset, integer(row), step)
                value, seen = (load(builder, builder.add(of, place), width) for of in (gradient, y))
                store(builder, gradient_of(builder, activation.count, value, seen, kept), builder.add(dy, place))

        over_rows(builder, lanes.count, rows, channels, block)

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, dy, rows, channels)


def _add_sums(builder: Builder, sums: Value, step: Value, width: int, values: Sequence[tuple[Value, Value]]) -> None:
    """Add Σ a and Σ a·b of a block's rows to float sums, ``step`` bytes apart."""
    places = (sums, builder.add(sums, step))
    first, second = (load(builder, place, width) for place in places)
    for a, b in values:
        first, second = builder.fadd(first, a), multiply_add(builder, a, b, second)
    store(builder, first, places[0])
    store(builder, second, places[1])


@intrinsic
def sum_rows(context: Any, lanes: Any, y: Any, shift: Any, sums: Any, rows: Any, channels: Any) -> Any:
    """Add the values of some rows less their shift, and the squares of that."""
    del context

    def build(builder: Builder, _: Value, y: Value, shift: Value, sums: Value, rows: Value, channels: Value) -> None:
        def block(width: int, count: int, offset: Value, at: Value) -> None:
            step = builder.mul(channels, integer(FLOAT_BYTES))
            least = load(builder, builder.add(shift, at), width)

            def values(row: int) -> tuple[Value, Value]:
                place = builder.add(y, moved(builder, offset, integer(row), step))
                value = builder.fsub(load(builder, place, width), least)
                return value, value

            _add_sums(builder, builder.add(sums, at), step, width, [values(row) for row in range(count)])

        over_rows(builder, lanes.count, rows, channels, block)

    return intrinsic_of(build, lanes, y, shift, sums, rows, channels)


@intrinsic
def _sum_gradient_rows(
    context: Any,
    lanes: Any,
    activation: Any,
    gradient: Any,
    y: Any,
    coefficients: Any,
    sums: Any,
    rows: Any,
    channels: Any,
) -> Any:
    """Add dz of some rows, and dz·(y − μ)."""
    del context

    def build(builder: Builder, _lanes: Value, _activation: Value, gradient: Value, *rest: Value) -> None:
        y, coefficients, sums, rows, channels = rest

        def block(width: int, count: int, offset: Value, at: Value) -> None:
            step = builder.mul(channels, integer(FLOAT_BYTES))
            kept = coefficients_at(builder, width, builder.add(coefficients, at), step)

            def values(row: int) -> tuple[Value, Value]:
                place = moved(builder, offset, integer(row), step)
                value, seen = (load(builder, builder.add(of, place), width) for of in (gradient, y))
                return gradient_and_deviation(builder, activation.count, value, seen, kept)

            _add_sums(builder, builder.add(sums, at), step, width, [values(row) for row in range(count)])

        over_rows(builder, lanes.count, rows, channels, block)

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, sums, rows, channels)


@intrinsic
def flush(context: Any, lanes: Any, sums: Any, totals: Any, channels: Any) -> Any:
    """Add float sums, (channels), to doubles, and clear them."""
    del context

    def build(builder: Builder, _: Value, sums: Value, totals: Value, channels: Value) -> None:
        def block(width: int, at: Value) -> None:
            place = builder.add(sums, at)
            add_to_doubles(builder, load(builder, place, width), moved(builder, totals, at, integer(2)))
            store(builder, constant(width, 0.0), place)

        over_channels(builder, lanes.count, channels, block)

    return intrinsic_of(build, lanes, sums, totals, channels)


@intrinsic
def set_mean(context: Any, lanes: Any, sums: Any, shift: Any, count: Any, channels: Any) -> Any:
    """Write sums, (channels), divided by their count, and clear both sums."""
    del context

    def build(builder: Builder, _: Value, sums: Value, shift: Value, count: Value, channels: Value) -> None:
        step = builder.mul(channels, integer(FLOAT_BYTES))

        def block(width: int, at: Value) -> None:
            place = builder.add(sums, at)
            store(builder, divided(builder, load(builder, place, width), count), builder.add(shift, at))
            store(builder, constant(width, 0.0), place)
            store(builder, constant(width, 0.0), builder.add(place, step))

        over_channels(builder, lanes.count, channels, block)

    return intrinsic_of(build, lanes, sums, shift, count, channels)


@njit(nogil=True)
def activate_panel(lanes, number, y, coefficients, out, rows, channels):
    """Write the activations of rows."""
    if number == RELU:
        _activate_rows(lanes, _RELU, y, coefficients, out, rows, channels)
    elif number == HSWISH:
        _activate_rows(lanes, _HSWISH, y, coefficients, out, rows, channels)
    else:
        _activate_rows(lanes, _NONE, y, coefficients, out, rows, channels)


@njit(nogil=True)
def differentiate_panel(lanes, number, gradient, y, coefficients, dy, rows, channels):
    """Write dy of rows."""
    if number == RELU:
        _differentiate_rows(lanes, _RELU, gradient, y, coefficients, dy, rows, channels)
    elif number == HSWISH:
        _differentiate_rows(lanes, _HSWISH, gradient, y, coefficients, dy, rows, channels)
    else:
        _differentiate_rows(lanes, _NONE, gradient, y, coefficients, dy, rows, channels)


@njit(nogil=True)
def sum_gradient_panel(lanes, number, gradient, y, coefficients, sums, rows, channels):
    """Add dz of rows, and dz·(y − μ), to float sums."""
    if number == RELU:
        _sum_gradient_rows(lanes, _RELU, gradient, y, coefficients, sums, rows, channels)
    elif number == HSWISH:
        _sum_gradient_rows(lanes, _HSWISH, gradient, y, coefficients, sums, rows, channels)
    else:
        _sum_gradient_rows(lanes, _NONE, gradient, y, coefficients, sums, rows, channels)
