"""Norm and activation on pixels that lie in the caches: a few rows of all channels, or one block of channels.

With μ and σ² the moments of a batch, s = γ/√(σ²+ε), t = β − s·μ, z = s·y + t, a = activation(z), g the gradient of a:

- dz = g · activation'(z), dβ = Σ dz, dγ = Σ dz·(y − μ) / √(σ²+ε);
- dy = s·dz + b·(y − μ) + c, with b = −s·dγ / (n·√(σ²+ε)) and c = −s·dβ / n  (Ioffe and Szegedy 2015, section 3).

z is computed anew wherever it is needed. A channel's numbers are its *coefficients*, in the order of ``COEFFICIENTS``.
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import intrinsic

from training.kernels.activations import HSWISH, NONE, PLAIN, RELU, activated, sloped
from training.kernels.vectors import (
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
    register,
    repeated,
    size,
    store,
)

#: The coefficients of a channel; together (6, channels) floats.
COEFFICIENTS = ("s", "t", "μ", "b", "c", "1/√(σ²+ε)")

#: Sums of one block that are made side by side.
_AT_ONCE = 4

_NONE, _RELU, _HSWISH = size(NONE), size(RELU), size(HSWISH)


def _coefficients(builder: Builder, lanes: int, address: Value, step: Value) -> list[Value]:
    """Return all that a pass may read: the first five."""
    return [load(builder, moved(builder, address, integer(row), step), lanes) for row in range(5)]


def _gradient(builder: Builder, number: int, gradient: Value, y: Value, coefficients: list[Value]) -> Value:
    """Return dy."""
    s, t, mean, b, c = coefficients
    dz = sloped(builder, number, multiply_add(builder, y, s, t), gradient)
    return multiply_add(builder, s, dz, multiply_add(builder, b, builder.fsub(y, mean), c))


@intrinsic
def _differentiate_pixels(
    context: Any, lanes: Any, activation: Any,
    gradient: Any, y: Any, coefficients: Any, step: Any, target: Any, pixels: Any, target_step: Any,
) -> Any:  # fmt: skip
    """Write dy of one block's pixels, ``target_step`` bytes apart."""
    del context

    def build(
        builder: Builder, _lanes: Value, _activation: Value,
        gradient: Value, y: Value, coefficients: Value, step: Value, target: Value, pixels: Value, target_step: Value,
    ) -> None:  # fmt: skip
        kept = _coefficients(builder, lanes.count, coefficients, step)
        with repeated(builder, pixels) as loop:
            value, seen = (load(builder, moved(builder, of, loop.index, step), lanes.count) for of in (gradient, y))
            changed = _gradient(builder, activation.count, value, seen, kept)
            store(builder, changed, moved(builder, target, loop.index, target_step))

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, step, target, pixels, target_step)


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
            s, t = _coefficients(builder, width, builder.add(coefficients, at), step)[:2]
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
            kept = _coefficients(builder, width, builder.add(coefficients, at), step)
            for row in range(count):
                place = moved(builder, offset, integer(row), step)
                value, seen = (load(builder, builder.add(of, place), width) for of in (gradient, y))
                store(builder, _gradient(builder, activation.count, value, seen, kept), builder.add(dy, place))

        over_rows(builder, lanes.count, rows, channels, block)

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, dy, rows, channels)


@intrinsic
def sum_rows(context: Any, lanes: Any, y: Any, shift: Any, sums: Any, rows: Any, channels: Any) -> Any:
    """Add the values of some rows less their shift, and the squares of that."""
    del context

    def build(builder: Builder, _: Value, y: Value, shift: Value, sums: Value, rows: Value, channels: Value) -> None:
        def block(width: int, count: int, offset: Value, at: Value) -> None:
            step = builder.mul(channels, integer(FLOAT_BYTES))
            places = [builder.add(sums, at), builder.add(builder.add(sums, step), at)]
            first, second = (load(builder, place, width) for place in places)
            least = load(builder, builder.add(shift, at), width)
            for row in range(count):
                place = builder.add(y, moved(builder, offset, integer(row), step))
                value = builder.fsub(load(builder, place, width), least)
                first, second = builder.fadd(first, value), multiply_add(builder, value, value, second)
            store(builder, first, places[0])
            store(builder, second, places[1])

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
            s, t, mean = _coefficients(builder, width, builder.add(coefficients, at), step)[:3]
            places = [builder.add(sums, at), builder.add(builder.add(sums, step), at)]
            first, second = (load(builder, place, width) for place in places)
            for row in range(count):
                place = moved(builder, offset, integer(row), step)
                value, seen = (load(builder, builder.add(of, place), width) for of in (gradient, y))
                dz = sloped(builder, activation.count, multiply_add(builder, seen, s, t), value)
                first, second = builder.fadd(first, dz), multiply_add(builder, dz, builder.fsub(seen, mean), second)
            store(builder, first, places[0])
            store(builder, second, places[1])

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


def _add_sums(
    builder: Builder,
    lanes: int,
    pixels: Value,
    values: Callable[[Value], tuple[Value, Value]],
    totals: Value,
    step: Value,
) -> None:
    """Add Σ a and Σ a·b over pixels to doubles (2, channels), where ``values`` has a and b of a pixel."""
    zero = constant(lanes, 0.0)
    pairs = [(register(builder, zero), register(builder, zero)) for _ in range(_AT_ONCE)]

    def take(row: Value, pair: tuple[Value, Value]) -> None:
        a, b = values(row)
        builder.store(builder.fadd(builder.load(pair[0]), a), pair[0])
        builder.store(multiply_add(builder, a, b, builder.load(pair[1])), pair[1])

    whole = builder.sdiv(pixels, integer(_AT_ONCE))
    with repeated(builder, whole) as loop:
        for number, pair in enumerate(pairs):
            take(builder.add(builder.mul(loop.index, integer(_AT_ONCE)), integer(number)), pair)
    done = builder.mul(whole, integer(_AT_ONCE))
    with repeated(builder, builder.sub(pixels, done)) as loop:
        take(builder.add(done, loop.index), pairs[0])
    for which, place in enumerate((totals, moved(builder, totals, step, integer(2)))):
        for pair in pairs:
            add_to_doubles(builder, builder.load(pair[which]), place)


@intrinsic
def mean_of(context: Any, lanes: Any, y: Any, shift: Any, pixels: Any, step: Any) -> Any:
    """Write the mean of one block's pixels."""
    del context

    def build(builder: Builder, _: Value, y: Value, shift: Value, pixels: Value, step: Value) -> None:
        total = register(builder, constant(lanes.count, 0.0))
        with repeated(builder, pixels) as loop:
            value = load(builder, moved(builder, y, loop.index, step), lanes.count)
            builder.store(builder.fadd(builder.load(total), value), total)
        store(builder, divided(builder, builder.load(total), pixels), shift)

    return intrinsic_of(build, lanes, y, shift, pixels, step)


@intrinsic
def add_moments(context: Any, lanes: Any, y: Any, shift: Any, totals: Any, pixels: Any, step: Any) -> Any:
    """Add one block's values less their shift, and the squares of that, to doubles."""
    del context

    def build(builder: Builder, _: Value, y: Value, shift: Value, totals: Value, pixels: Value, step: Value) -> None:
        least = load(builder, shift, lanes.count)

        def values(row: Value) -> tuple[Value, Value]:
            value = builder.fsub(load(builder, moved(builder, y, row, step), lanes.count), least)
            return value, value

        _add_sums(builder, lanes.count, pixels, values, totals, step)

    return intrinsic_of(build, lanes, y, shift, totals, pixels, step)


@intrinsic
def _activate_pixels(
    context: Any,
    lanes: Any,
    activation: Any,
    y: Any,
    coefficients: Any,
    step: Any,
    target: Any,
    pixels: Any,
    target_step: Any,
) -> Any:
    """Write the activations of one block's pixels, ``target_step`` bytes apart."""
    del context

    def build(builder: Builder, _lanes: Value, _activation: Value, y: Value, *rest: Value) -> None:
        coefficients, step, target, pixels, target_step = rest
        s, t = _coefficients(builder, lanes.count, coefficients, step)[:2]
        with repeated(builder, pixels) as loop:
            z = multiply_add(builder, load(builder, moved(builder, y, loop.index, step), lanes.count), s, t)
            store(builder, activated(builder, activation.count, z), moved(builder, target, loop.index, target_step))

    return intrinsic_of(build, lanes, activation, y, coefficients, step, target, pixels, target_step)


@intrinsic
def _copy_pixels(context: Any, lanes: Any, source: Any, step: Any, target: Any, pixels: Any, target_step: Any) -> Any:
    """Copy one block's pixels, ``target_step`` bytes apart."""
    del context

    def build(
        builder: Builder, _: Value, source: Value, step: Value, target: Value, pixels: Value, target_step: Value
    ) -> None:
        with repeated(builder, pixels) as loop:
            value = load(builder, moved(builder, source, loop.index, step), lanes.count)
            store(builder, value, moved(builder, target, loop.index, target_step))

    return intrinsic_of(build, lanes, source, step, target, pixels, target_step)


@intrinsic
def _add_gradient_sums(
    context: Any,
    lanes: Any,
    activation: Any,
    gradient: Any,
    y: Any,
    coefficients: Any,
    totals: Any,
    pixels: Any,
    step: Any,
) -> Any:
    """Add one block's dz, and dz·(y − μ), to doubles."""
    del context

    def build(builder: Builder, _lanes: Value, _activation: Value, gradient: Value, *rest: Value) -> None:
        y, coefficients, totals, pixels, step = rest
        s, t, mean = _coefficients(builder, lanes.count, coefficients, step)[:3]

        def values(row: Value) -> tuple[Value, Value]:
            value, seen = (load(builder, moved(builder, of, row, step), lanes.count) for of in (gradient, y))
            dz = sloped(builder, activation.count, multiply_add(builder, seen, s, t), value)
            return dz, builder.fsub(seen, mean)

        _add_sums(builder, lanes.count, pixels, values, totals, step)

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, totals, pixels, step)


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


@njit(nogil=True)
def fill_pixels(lanes, number, y, coefficients, step, target, pixels, target_step):
    """Write the activations of one block's pixels ``target_step`` bytes apart; with PLAIN the values themselves."""
    if number == PLAIN:
        _copy_pixels(lanes, y, step, target, pixels, target_step)
    elif number == RELU:
        _activate_pixels(lanes, _RELU, y, coefficients, step, target, pixels, target_step)
    elif number == HSWISH:
        _activate_pixels(lanes, _HSWISH, y, coefficients, step, target, pixels, target_step)
    else:
        _activate_pixels(lanes, _NONE, y, coefficients, step, target, pixels, target_step)


@njit(nogil=True)
def differentiate_pixels(lanes, number, gradient, y, coefficients, step, target, pixels, target_step):
    """Write dy of one block's pixels ``target_step`` bytes apart; with PLAIN the gradient itself."""
    if number == PLAIN:
        _copy_pixels(lanes, gradient, step, target, pixels, target_step)
    elif number == RELU:
        _differentiate_pixels(lanes, _RELU, gradient, y, coefficients, step, target, pixels, target_step)
    elif number == HSWISH:
        _differentiate_pixels(lanes, _HSWISH, gradient, y, coefficients, step, target, pixels, target_step)
    else:
        _differentiate_pixels(lanes, _NONE, gradient, y, coefficients, step, target, pixels, target_step)


@njit(nogil=True)
def add_gradient_sums(lanes, number, gradient, y, coefficients, totals, pixels, step):
    """Add one block's dz, and dz·(y − μ), to doubles."""
    if number == RELU:
        _add_gradient_sums(lanes, _RELU, gradient, y, coefficients, totals, pixels, step)
    elif number == HSWISH:
        _add_gradient_sums(lanes, _HSWISH, gradient, y, coefficients, totals, pixels, step)
    else:
        _add_gradient_sums(lanes, _NONE, gradient, y, coefficients, totals, pixels, step)
