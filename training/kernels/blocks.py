"""Norm and activation on one image's block of neighbouring channels, which fits the caches; see ``formulas.py``."""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import intrinsic

from fedpareto.training.kernels.activations import HSWISH, NONE, PLAIN, RELU, activated
from fedpareto.training.kernels.formulas import coefficients_at, gradient_and_deviation, gradient_of
from fedpareto.training.kernels.vectors import (
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
    register,
    repeated,
    size,
    store,
)

#: Sums that are made side by side.
_AT_ONCE = 4

_NONE, _RELU, _HSWISH = size(NONE), size(RELU), size(HSWISH)


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
        s, t = coefficients_at(builder, lanes.count, coefficients, step)[:2]
        with repeated(builder, pixels) as loop:
            z = multiply_add(builder, load(builder, moved(builder, y, loop.index, step), lanes.count), s, t)
            store(builder, activated(builder, activation.count, z), moved(builder, target, loop.index, target_step))

    return intrinsic_of(build, lanes, activation, y, coefficients, step, target, pixels, target_step)


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
        kept = coefficients_at(builder, lanes.count, coefficients, step)
        with repeated(builder, pixels) as loop:
            value, seen = (load(builder, moved(builder, of, loop.index, step), lanes.count) for of in (gradient, y))
            changed = gradient_of(builder, activation.count, value, seen, kept)
            store(builder, changed, moved(builder, target, loop.index, target_step))

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, step, target, pixels, target_step)


def _add_sums(
    builder: Builder,
    lanes: int,
    pixels: Value,
    values: Callable[[Value], tuple[Value, Value]],
    totals: Value,
    step: Value,
) -> None:
    """Add Σ a and Σ a·b over pixels to doubles (2, channels), where ``values`` returns a and b of a pixel."""
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
        kept = coefficients_at(builder, lanes.count, coefficients, step)

        def values(row: Value) -> tuple[Value, Value]:
            value, seen = (load(builder, moved(builder, of, row, step), lanes.count) for of in (gradient, y))
            return gradient_and_deviation(builder, activation.count, value, seen, kept)

        _add_sums(builder, lanes.count, pixels, values, totals, step)

    return intrinsic_of(build, lanes, activation, gradient, y, coefficients, totals, pixels, step)


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
