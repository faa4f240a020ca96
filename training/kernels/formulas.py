"""Formulas of batch norm and activation, forward and backward, on vectors.

With μ and σ² the moments of a batch, s = γ/√(σ²+ε), t = β − s·μ, z = s·y + t, a = activation(z), g the gradient of a:

- dz = g · activation'(z), dβ = Σ dz, dγ = Σ dz·(y − μ) / √(σ²+ε);
- dy = s·dz + b·(y − μ) + c, with b = −s·dγ / (n·√(σ²+ε)) and c = −s·dβ / n  (Ioffe and Szegedy 2015, section 3).

z is computed again wherever it is needed. A channel's numbers are its *coefficients*, in the order of ``COEFFICIENTS``.
"""

from fedpareto.training.kernels.activations import sloped
from fedpareto.training.kernels.vectors import Builder, Value, integer, load, moved, multiply_add

#: The coefficients of a channel; together (6, channels) floats.
COEFFICIENTS = ("s", "t", "μ", "b", "c", "1/√(σ²+ε)")


def coefficients_at(builder: Builder, lanes: int, address: Value, step: Value) -> list[Value]:
    """Return the coefficients of a block that a pass may read: the first five."""
    return [load(builder, moved(builder, address, integer(row), step), lanes) for row in range(5)]


def gradient_and_deviation(
    builder: Builder, number: int, gradient: Value, y: Value, coefficients: list[Value]
) -> tuple[Value, Value]:
    """Return dz and y − μ, whose sums the gradients of a norm need."""
    s, t, mean = coefficients[:3]
    return sloped(builder, number, multiply_add(builder, y, s, t), gradient), builder.fsub(y, mean)


def gradient_of(builder: Builder, number: int, gradient: Value, y: Value, coefficients: list[Value]) -> Value:
    """Return dy."""
    dz, deviation = gradient_and_deviation(builder, number, gradient, y, coefficients)
    s, b, c = coefficients[0], coefficients[3], coefficients[4]
    return multiply_add(builder, s, dz, multiply_add(builder, b, deviation, c))
