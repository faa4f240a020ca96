"""Chains of layers as one function of autograd: convolutions, each with its batch norm and activation.

A layer's convolution is written to memory once. Its norm and activation are computed where they are read: while the
next convolution reads its input, and again in the backward pass. Of a chain's inner tensors only the results of
convolutions are kept.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor

from fedpareto.training.kernels import depthwise, normalisation, pointwise
from fedpareto.training.kernels.activations import NUMBERS, PLAIN, ActivationCode
from fedpareto.training.kernels.formulas import COEFFICIENTS
from fedpareto.training.kernels.normalisation import PANEL, Rows
from fedpareto.training.kernels.vectors import FLOAT_BYTES
from fedpareto.training.kernels.widths import WIDTHS

_DOUBLE_BYTES = 8

LinkKind = Literal["pointwise", "depthwise", "dense"]


@dataclasses.dataclass(frozen=True)
class ChainLayer:
    """Layer of a chain: a convolution, with its batch norm and activation.

    Attributes:
        kind: kind of the convolution: 1×1, depthwise, or any other, which torch computes.
        kernel: side of the kernel.
        stride: stride of the convolution.
        epsilon: ε of the batch norm, or None for a convolution by itself.
        activation: activation after the norm.
    """

    kind: LinkKind
    kernel: int
    stride: int
    epsilon: float | None
    activation: ActivationCode

    @property
    def number(self) -> int:
        """Number of the activation for the kernels."""
        return PLAIN if self.epsilon is None else NUMBERS[self.activation]


@dataclasses.dataclass
class _Signal:
    """Tensor (N, C, H, W) before norm and activation, with its coefficients and its activation; PLAIN for none."""

    values: Tensor
    coefficients: Tensor | None
    number: int

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of the values and the coefficients."""
        return self.values.data_ptr(), 0 if self.coefficients is None else self.coefficients.data_ptr()


class _Sums:
    """Memory for the sums of C channels by each thread: (2, C) doubles, then floats: a shift (C) and sums (2, C)."""

    def __init__(self, channels: int, threads: int) -> None:
        self._channels, self._bytes = channels, 4 * channels * _DOUBLE_BYTES
        self._memory = torch.zeros(threads * 4 * channels, dtype=torch.float64)
        self.start = self._memory.data_ptr()

    def totals(self, thread: int) -> int:
        """Return the address of a thread's doubles."""
        return self.start + thread * self._bytes

    def shift(self, thread: int) -> int:
        """Return the address of a thread's shift."""
        return self.totals(thread) + 2 * self._channels * _DOUBLE_BYTES

    def sums(self, thread: int) -> int:
        """Return the address of a thread's floats."""
        return self.shift(thread) + self._channels * FLOAT_BYTES


class Chain(torch.autograd.Function):
    """Function of a chain: ``Chain.apply(x, layers, *parameters)`` maps (N, C, H, W) to (N, C', H', W').

    ``parameters`` are weight, γ and β of every layer. All tensors are float32 on the CPU, with channels in multiples of
    eight. The result is deterministic for a number of threads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[ChainLayer], *parameters: Any) -> Tensor:
        """Return the activations of the last layer."""
        signal = _Signal(x.contiguous(memory_format=torch.channels_last), None, PLAIN)
        signals = [signal]
        for number, layer in enumerate(layers):
            signal = _convolved(layer, signal, *parameters[3 * number : 3 * number + 3])
            signals.append(signal)
        ctx.layers, ctx.numbers, ctx.spent = layers, [one.number for one in signals], False
        ctx.save_for_backward(
            *(one.values for one in signals), *(one.coefficients for one in signals), *parameters[::3]
        )
        return signal.values if signal.number == PLAIN else _activated(signal)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x and of all parameters."""
        if ctx.spent:
            raise RuntimeError("gradients of fused layers can be taken once: they are written over what was kept")
        ctx.spent = True
        count = len(ctx.layers) + 1
        kept = ctx.saved_tensors
        signals = [_Signal(*one) for one in zip(kept[:count], kept[count : 2 * count], ctx.numbers, strict=True)]
        weights = kept[2 * count :]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        norm: tuple[Tensor | None, Tensor | None] = (None, None)
        if signals[-1].number != PLAIN:
            norm = _finish_gradients(signals[-1], _sum_gradients(signals[-1], gradient))
        found: list[Tensor | None] = []
        for number in reversed(range(len(ctx.layers))):
            source, result = signals[number], signals[number + 1]
            needed = number > 0 or ctx.needs_input_grad[0]
            dx, dweight, sums = _differentiated(ctx.layers[number], source, result, weights[number], gradient, needed)
            found[:0] = [dweight, *norm]
            if sums is not None:
                norm = _finish_gradients(source, sums)
            if dx is not None:
                gradient = dx
        return gradient if ctx.needs_input_grad[0] else None, None, *found


def _convolved(
    layer: ChainLayer, source: _Signal, weight: Tensor, scale: Tensor | None, bias: Tensor | None
) -> _Signal:
    """Return a layer's convolution of the signal before it, with the coefficients of the layer's norm."""
    n, _, height, width = source.values.shape
    channels, stride = weight.shape[0], layer.stride
    if layer.kind == "dense":
        y = torch.conv2d(source.values, weight, None, stride, layer.kernel // 2)
        y = y.contiguous(memory_format=torch.channels_last)
    else:
        shape = (n, channels, (height - 1) // stride + 1, (width - 1) // stride + 1)
        y = torch.empty(shape, memory_format=torch.channels_last)
    sums = None if layer.epsilon is None else _Sums(channels, torch.get_num_threads())
    match layer.kind:
        case "depthwise":
            _depthwise(layer, source, weight, y, sums)
        case "pointwise":
            _pointwise(source, weight, y, sums)
        case "dense" if sums is not None:
            _moments(y, sums)
    if layer.epsilon is None or sums is None or scale is None or bias is None:
        return _Signal(y, None, PLAIN)
    scale, bias = scale.contiguous(), bias.contiguous()
    coefficients = torch.empty(len(COEFFICIENTS), channels)
    pixels = y.shape[2] * y.shape[3]
    of = normalisation.Finish(sums.start, scale.data_ptr(), bias.data_ptr(), coefficients.data_ptr(), 0, 0)
    normalisation.finish_moments(of, Rows(0, n * pixels, channels), torch.get_num_threads(), pixels, layer.epsilon)
    return _Signal(y, coefficients, layer.number)


def _depthwise(layer: ChainLayer, source: _Signal, weight: Tensor, y: Tensor, sums: _Sums | None) -> None:
    n, channels, height, width = source.values.shape
    x, coefficients = source.addresses
    taps = weight.flatten(1).t().contiguous()
    each = depthwise.scratch_floats(WIDTHS.lanes, height, width, layer.kernel)
    scratch = torch.zeros(torch.get_num_threads(), each)

    def run(thread: int, first: int, last: int) -> None:
        of = depthwise.Forward(
            source.number, x, coefficients, taps.data_ptr(), y.data_ptr(),
            scratch.data_ptr() + thread * each * FLOAT_BYTES,
            sums.shift(thread) if sums else 0, sums.totals(thread) if sums else 0,
        )  # fmt: skip
        extent = depthwise.Extent(
            first, last, layer.kernel, layer.stride, height, width, channels, y.shape[2], y.shape[3]
        )
        depthwise.forward(WIDTHS.lane_size, of, extent)

    _spread(n, run)


def _pointwise(source: _Signal, weight: Tensor, y: Tensor, sums: _Sums | None) -> None:
    n, inner, height, width = source.values.shape
    channels, pixels = weight.shape[0], height * width
    x, coefficients = source.addresses
    columns = weight.reshape(channels, inner).t().contiguous()
    scratch = torch.empty(torch.get_num_threads(), PANEL * inner)

    def run(thread: int, first: int, last: int) -> None:
        of = pointwise.Forward(
            source.number, x, coefficients, columns.data_ptr(), y.data_ptr(),
            scratch.data_ptr() + thread * PANEL * inner * FLOAT_BYTES,
            *((sums.shift(thread), sums.sums(thread), sums.totals(thread)) if sums else (0, 0, 0)),
        )  # fmt: skip
        pointwise.forward(WIDTHS.lane_size, WIDTHS.tile, of, Rows(first * pixels, last * pixels, channels), inner)

    _spread(n, run)


def _moments(y: Tensor, sums: _Sums) -> None:
    n, channels, height, width = y.shape
    pixels = height * width

    def run(thread: int, first: int, last: int) -> None:
        of = normalisation.Moments(y.data_ptr(), sums.shift(thread), sums.sums(thread), sums.totals(thread))
        normalisation.moments(WIDTHS.lane_size, of, Rows(first * pixels, last * pixels, channels))

    _spread(n, run)


def _activated(signal: _Signal) -> Tensor:
    out = torch.empty_like(signal.values)
    n, channels, height, width = out.shape
    of = normalisation.Forward(*signal.addresses, out.data_ptr())

    def run(_: int, first: int, last: int) -> None:
        normalisation.activate(WIDTHS.lane_size, signal.number, of, Rows(first, last, channels))

    _spread(n * height * width, run)
    return out


def _sum_gradients(signal: _Signal, gradient: Tensor) -> _Sums:
    n, channels, height, width = signal.values.shape
    sums = _Sums(channels, torch.get_num_threads())

    def run(thread: int, first: int, last: int) -> None:
        of = normalisation.Backward(gradient.data_ptr(), *signal.addresses, sums.sums(thread), sums.totals(thread), 0)
        normalisation.sum_gradients(WIDTHS.lane_size, signal.number, of, Rows(first, last, channels))

    _spread(n * height * width, run)
    return sums


def _finish_gradients(signal: _Signal, sums: _Sums) -> tuple[Tensor, Tensor]:
    """Complete the coefficients; return the gradients of γ and β."""
    n, channels, height, width = signal.values.shape
    written = torch.empty(2, channels)
    dscale, dbias = written
    of = normalisation.Finish(sums.start, 0, 0, signal.addresses[1], dscale.data_ptr(), dbias.data_ptr())
    normalisation.finish_gradients(of, Rows(0, n * height * width, channels), torch.get_num_threads())
    return dscale, dbias


def _differentiated(
    layer: ChainLayer, source: _Signal, result: _Signal, weight: Tensor, gradient: Tensor, needed: bool
) -> tuple[Tensor | None, Tensor, _Sums | None]:
    """Return the gradients of a convolution's input and weights, and the sums for the norm of the input."""
    match layer.kind:
        case "depthwise":
            return _depthwise_back(layer, source, result, weight, gradient, needed)
        case "pointwise":
            return _pointwise_back(source, result, weight, gradient, needed)
        case "dense":
            return *_dense_back(layer, source, result, weight, gradient, needed), None


def _depthwise_back(
    layer: ChainLayer, source: _Signal, result: _Signal, weight: Tensor, gradient: Tensor, needed: bool
) -> tuple[Tensor | None, Tensor, _Sums | None]:
    n, channels, height, width = source.values.shape
    threads, kernel = torch.get_num_threads(), layer.kernel
    y, coefficients = result.addresses
    x, coefficients_in = source.addresses
    sums = None if source.number == PLAIN else _Sums(channels, threads)
    # A block's results are read before its gradients are written, so these may lie where those did.
    dx = (result.values if layer.stride == 1 else torch.empty_like(source.values)) if needed else None
    taps = weight.flatten(1).t().contiguous()
    dtaps = torch.zeros(threads, *taps.shape)
    each = depthwise.scratch_floats(WIDTHS.lanes, height, width, kernel)
    scratch = torch.zeros(threads, 2, each)

    def run(thread: int, first: int, last: int) -> None:
        memory = scratch.data_ptr() + thread * 2 * each * FLOAT_BYTES
        of = depthwise.Backward(
            result.number, gradient.data_ptr(), y, coefficients, source.number, x, coefficients_in, taps.data_ptr(),
            dx.data_ptr() if dx is not None else 0, dtaps.data_ptr() + thread * taps.numel() * FLOAT_BYTES,
            memory, memory + each * FLOAT_BYTES, sums.totals(thread) if sums else 0,
        )  # fmt: skip
        extent = depthwise.Extent(
            first, last, layer.kernel, layer.stride, height, width, channels, *result.values.shape[2:]
        )
        depthwise.backward(WIDTHS.lane_size, WIDTHS.register_size, of, extent)

    _spread(n, run)
    return dx, _total(dtaps).t().reshape(weight.shape), sums


def _pointwise_back(
    source: _Signal, result: _Signal, weight: Tensor, gradient: Tensor, needed: bool
) -> tuple[Tensor | None, Tensor, _Sums | None]:
    n, inner, height, width = source.values.shape
    channels, pixels, threads = weight.shape[0], height * width, torch.get_num_threads()
    y, coefficients = result.addresses
    x, coefficients_in = source.addresses
    sums = None if source.number == PLAIN else _Sums(inner, threads)
    dx = torch.empty_like(source.values) if needed else None
    rows = weight.reshape(channels, inner).contiguous()
    turned = channels >= inner
    dweight = torch.zeros(threads, *((inner, channels) if turned else (channels, inner)))
    each = PANEL * (inner + channels)
    scratch = torch.empty(threads, each)

    def run(thread: int, first: int, last: int) -> None:
        of = pointwise.Backward(
            result.number, gradient.data_ptr(), y, coefficients, source.number, x, coefficients_in, rows.data_ptr(),
            dx.data_ptr() if dx is not None else 0, dweight.data_ptr() + thread * rows.numel() * FLOAT_BYTES,
            scratch.data_ptr() + thread * each * FLOAT_BYTES,
            *((sums.sums(thread), sums.totals(thread)) if sums else (0, 0)),
        )  # fmt: skip
        pointwise.backward(WIDTHS.lane_size, WIDTHS.tile, of, Rows(first * pixels, last * pixels, channels), inner)

    _spread(n, run)
    total = _total(dweight)
    return dx, (total.t() if turned else total).reshape(weight.shape), sums


def _dense_back(
    layer: ChainLayer, source: _Signal, result: _Signal, weight: Tensor, gradient: Tensor, needed: bool
) -> tuple[Tensor | None, Tensor]:
    y = result.values
    n, channels, height, width = y.shape
    # What a convolution yielded is not read again, so its gradient takes its place.
    of = normalisation.Backward(gradient.data_ptr(), *result.addresses, 0, 0, y.data_ptr())

    def run(_: int, first: int, last: int) -> None:
        normalisation.differentiate(WIDTHS.lane_size, result.number, of, Rows(first, last, channels))

    _spread(n * height * width, run)
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        y, source.values, weight, None, [layer.stride] * 2, [layer.kernel // 2] * 2, [1, 1], False, [0, 0], 1,
        [needed, True, False],
    )  # fmt: skip
    return dx, dweight


def _total(parts: Tensor) -> Tensor:
    """Return the sum of the threads' parts, added in the order of the threads."""
    return parts[0] if len(parts) == 1 else parts.sum(0)


def _spread(count: int, call: Callable[[int, int, int], None]) -> None:
    """Call ``call(thread, first, last)`` for equal shares of ``count``, on as many threads as torch has here."""
    threads = torch.get_num_threads()
    if threads == 1:
        call(0, 0, count)
        return
    shares = [(thread, count * thread // threads, count * (thread + 1) // threads) for thread in range(threads)]
    others = [_pool().submit(call, *share) for share in shares[1:]]
    call(*shares[0])
    for other in others:
        other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "kernels")
