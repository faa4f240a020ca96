"""Activation functions and their derivatives on vectors, by number."""

from typing import Literal

from fedpareto.training.kernels.vectors import Builder, Value, at_most_zero, constant, multiply_add

ActivationCode = Literal["none", "relu", "hswish"]

#: Kernels are told of an activation by its number. PLAIN stands for no norm and no activation: values as they are.
PLAIN, NONE, RELU, HSWISH = range(4)
NUMBERS: dict[ActivationCode, int] = {"none": NONE, "relu": RELU, "hswish": HSWISH}


def activated(builder: Builder, number: int, z: Value) -> Value:
    """Return the activation of a vector."""
    if number == RELU:
        return at_most_zero(builder, z, constant(z.type.count, 0.0), z)
    if number == HSWISH:
        return builder.fmul(z, _hard_sigmoid(builder, z))
    return z


def sloped(builder: Builder, number: int, z: Value, gradient: Value) -> Value:
    """Return the gradient with respect to ``z``, given the gradient with respect to its activation."""
    if number == RELU:
        return at_most_zero(builder, z, constant(z.type.count, 0.0), gradient)
    if number == HSWISH:
        return builder.fmul(gradient, _hard_swish_slope(builder, z))
    return gradient


def _hard_sigmoid(builder: Builder, z: Value) -> Value:
    lanes = z.type.count
    zero, one = constant(lanes, 0.0), constant(lanes, 1.0)
    line = multiply_add(builder, z, constant(lanes, 1 / 6), constant(lanes, 0.5))
    below = builder.fcmp_ordered("<=", line, zero)
    above = builder.fcmp_ordered(">=", line, one)
    return builder.select(below, zero, builder.select(above, one, line))


def _hard_swish_slope(builder: Builder, z: Value) -> Value:
    # torch's rule: 0 below −3, z/3 + 1/2 up to 3, 1 above.
    lanes = z.type.count
    middle = multiply_add(builder, z, constant(lanes, 1 / 3), constant(lanes, 0.5))
    above = builder.fcmp_ordered(">", z, constant(lanes, 3.0))
    below = builder.fcmp_ordered("<", z, constant(lanes, -3.0))
    return builder.select(below, constant(lanes, 0.0), builder.select(above, constant(lanes, 1.0), middle))
