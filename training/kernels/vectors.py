"""Vector instructions for the kernels: vectors of neighbouring channels, built in LLVM's terms.

A kernel is a function that numba compiles. Its innermost part is an *intrinsic* that builds LLVM instructions on
vectors. Numba has no vectors of its own, and its code for loops over scalars keeps the sums in memory. Tensors are
dense float32 with the channels last, and given as addresses (64-bit integers).

Numba keeps compiled functions on disk by the types of their arguments, and not by the values in a closure. So a size
that a function is compiled for is passed as the *length* of a tuple: ``size(3)`` has three elements.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Bytes of a float.
FLOAT_BYTES = 4

#: Channels come in multiples of this.
_LEAST_LANES = 8

_ROWS_AT_ONCE = 4

_FLOAT, _DOUBLE, _INTEGER = ir.FloatType(), ir.DoubleType(), ir.IntType(64)

#: An instruction builder, and what its instructions yield; llvmlite has no types for them.
Builder = Any
Value = Any


def size(count: int) -> tuple[int, ...]:
    """Return the argument that stands for a size."""
    return (0,) * count


def intrinsic_of(build: Callable[..., None], *arguments: Any) -> Any:
    """Return an intrinsic in numba's form: its signature, and the function that generates its instructions.

    Args:
        build: function that is called with a builder and the values of the arguments.
        arguments: types of the arguments.
    """

    def generate(context: Any, builder: Builder, signature: Any, values: Sequence[Value]) -> Value:
        del signature
        build(builder, *values)
        return context.get_dummy_value()

    return types.void(*arguments), generate


def constant(lanes: int, value: float) -> Value:
    """Return a vector whose elements are all one value."""
    return ir.Constant(ir.VectorType(_FLOAT, lanes), [value] * lanes)


def integer(value: int) -> Value:
    """Return an integer constant."""
    return ir.Constant(_INTEGER, value)


def load(builder: Builder, address: Value, lanes: int, offset: int = 0) -> Value:
    """Return the vector at an address and an offset in floats."""
    return builder.load(_pointer(builder, address, lanes, offset), align=FLOAT_BYTES)


def store(builder: Builder, value: Value, address: Value, offset: int = 0) -> None:
    """Write a vector to an address and an offset in floats."""
    builder.store(value, _pointer(builder, address, value.type.count, offset), align=FLOAT_BYTES)


def _pointer(builder: Builder, address: Value, lanes: int, offset: int) -> Value:
    moved = builder.add(address, integer(offset * FLOAT_BYTES)) if offset else address
    return builder.inttoptr(moved, ir.VectorType(_FLOAT, lanes).as_pointer())


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """Return a·b + c, rounded once: the same bits whatever the width of vectors."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def add_to_doubles(builder: Builder, value: Value, address: Value) -> None:
    """Add a vector of floats to the doubles at an address."""
    doubles = ir.VectorType(_DOUBLE, value.type.count)
    place = builder.inttoptr(address, doubles.as_pointer())
    total = builder.fadd(builder.load(place, align=FLOAT_BYTES), builder.fpext(value, doubles))
    builder.store(total, place, align=FLOAT_BYTES)


def broadcast(builder: Builder, address: Value, lanes: int) -> Value:
    """Return a vector whose elements are all the float at an address."""
    return _spread(builder, builder.load(builder.inttoptr(address, _FLOAT.as_pointer())), lanes)


def _spread(builder: Builder, value: Value, lanes: int) -> Value:
    kind = ir.VectorType(_FLOAT, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, integer(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, first, mask)


def divided(builder: Builder, value: Value, count: Value) -> Value:
    """Return a vector divided by an integer."""
    return builder.fdiv(value, _spread(builder, builder.sitofp(count, _FLOAT), value.type.count))


def at_most_zero(builder: Builder, condition: Value, then: Value, otherwise: Value) -> Value:
    """Return ``then`` where the condition's vector is ≤ 0, else ``otherwise``; NaN is not ≤ 0, so it shows."""
    return builder.select(builder.fcmp_ordered("<=", condition, constant(condition.type.count, 0.0)), then, otherwise)


def moved(builder: Builder, address: Value, steps: Value, step: Value) -> Value:
    """Return an address plus ``steps`` steps of ``step`` bytes."""
    return builder.add(address, builder.mul(steps, step))


def repeated(builder: Builder, count: Value) -> Any:
    """Return the context of a loop's body, which runs ``count`` times; the context's value has the ``index``."""
    return cgutils.for_range(builder, count, intp=_INTEGER)


def cases(builder: Builder, *choices: tuple[Value, int]) -> Any:
    """Return the context of instructions that run only if every value equals the number beside it."""
    tests = [builder.icmp_signed("==", value, integer(number)) for value, number in choices]
    return builder.if_then(functools.reduce(builder.and_, tests))


def register(builder: Builder, value: Value) -> Value:
    """Return a variable that LLVM keeps in a register, with ``value`` as its first value."""
    return cgutils.alloca_once_value(builder, value)


def over_channels(builder: Builder, lanes: int, channels: Value, body: Callable[[int, Value], None]) -> None:
    """Run ``body(lanes, offset in bytes)`` for every block of channels, and for eight channels that may be left."""
    whole = builder.sdiv(channels, integer(lanes))
    with repeated(builder, whole) as loop:
        body(lanes, builder.mul(loop.index, integer(lanes * FLOAT_BYTES)))
    done = builder.mul(whole, integer(lanes))
    with builder.if_then(builder.icmp_signed("<", done, channels)):
        body(_LEAST_LANES, builder.mul(done, integer(FLOAT_BYTES)))


def over_rows(
    builder: Builder, lanes: int, rows: Value, channels: Value, body: Callable[[int, int, Value, Value], None]
) -> None:
    """Run ``body(lanes, rows, bytes, bytes in a row)`` for blocks of channels: several rows at once, then by row."""
    step = builder.mul(channels, integer(FLOAT_BYTES))
    groups = builder.sdiv(rows, integer(_ROWS_AT_ONCE))
    done = builder.mul(groups, integer(_ROWS_AT_ONCE))
    for count, number, start in ((_ROWS_AT_ONCE, groups, integer(0)), (1, builder.sub(rows, done), done)):
        with repeated(builder, number) as loop:
            row = builder.add(start, builder.mul(loop.index, integer(count)))
            offset = builder.mul(row, step)

            def block(width: int, at: Value, count: int = count, offset: Value = offset) -> None:
                body(width, count, builder.add(offset, at), at)

            over_channels(builder, lanes, channels, block)


@intrinsic
def as_floats(context: Any, address: Any) -> Any:
    """Return an address as a pointer to floats, for ``numba.carray``."""
    del context
    return types.CPointer(types.float32)(address), _to_pointer(_FLOAT)


@intrinsic
def as_doubles(context: Any, address: Any) -> Any:
    """Return an address as a pointer to doubles, for ``numba.carray``."""
    del context
    return types.CPointer(types.float64)(address), _to_pointer(_DOUBLE)


def _to_pointer(kind: Any) -> Callable[..., Value]:
    def generate(context: Any, builder: Builder, signature: Any, values: Sequence[Value]) -> Value:
        del context, signature
        return builder.inttoptr(values[0], kind.as_pointer())

    return generate
