"""Which layers of a network the kernels compute: those of a block that follow each other, as one chain.

A network keeps its plain modules and parameters. The first module of a chain runs all of it, the others pass on what
they are given. So a hook of a chain's last module still sees what that yields.
"""

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.supernet.networks.network import BlockModule, ConvLayer
from fedpareto.training.kernels.activations import ActivationCode
from fedpareto.training.kernels.chain import Chain, ChainLayer, LinkKind
from fedpareto.training.kernels.depthwise import KERNELS, STRIDES

#: Kernels take channels in blocks of at least this many.
_BLOCK = 8

_ACTIVATIONS: dict[type[nn.Module], ActivationCode] = {nn.Identity: "none", nn.ReLU: "relu", nn.Hardswish: "hswish"}


def use_kernels(network: nn.Module) -> None:
    """Let the kernels compute what they can of a network's training, in float32 on the CPU; torch does the rest."""
    for block in network.modules():
        if isinstance(block, BlockModule):
            for chain in _chains(block):
                _join(chain)
            for kind, name in block.steps:
                module = block.get_submodule(name)
                if kind in ("squeeze", "excite") and isinstance(module, ConvLayer):
                    module.forward = functools.partial(_as_product, module)  # type: ignore[method-assign]


def _chains(block: BlockModule) -> Iterator[list[tuple[ConvLayer, ChainLayer]]]:
    """Yield the layers of a block that can be computed together."""
    chain: list[tuple[ConvLayer, ChainLayer]] = []
    for _, name in block.steps:
        module = block.get_submodule(name)
        layer = layer_of(module) if type(module) is ConvLayer else None
        follows = chain and layer is not None and layer.kind != "dense" and layer.epsilon is not None
        if chain and not (follows and chain[-1][1].epsilon is not None):
            yield chain
            chain = []
        if layer is not None and isinstance(module, ConvLayer):
            chain.append((module, layer))
    if chain:
        yield chain


def layer_of(module: ConvLayer) -> ChainLayer | None:
    """Return what a module computes in the kernels' terms, or None where they cannot."""
    conv, norm, activation = module.conv, module.norm, _ACTIVATIONS.get(type(module.activation))
    kind = _kind(conv)
    if kind is None or conv.bias is not None or conv.out_channels % _BLOCK:
        return None
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if isinstance(norm, nn.BatchNorm2d) and not norm.track_running_stats and activation is not None:
        return ChainLayer(kind, kernel, stride, norm.eps, activation)
    return ChainLayer(kind, kernel, stride, None, "none") if kind == "depthwise" else None


def _kind(conv: nn.Conv2d) -> LinkKind | None:
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups == 1 and kernel == stride == 1 and conv.in_channels % _BLOCK == 0:
        return "pointwise"
    if conv.groups == 1:
        # Where a convolution reads more than the channels of a picture, what follows it no longer matters.
        return "dense" if conv.in_channels < _BLOCK else None
    single = conv.groups == conv.in_channels == conv.out_channels
    return "depthwise" if single and kernel in KERNELS and stride in STRIDES else None


def _join(chain: Sequence[tuple[ConvLayer, ChainLayer]]) -> None:
    modules, layers = [module for module, _ in chain], tuple(layer for _, layer in chain)
    modules[0].forward = functools.partial(_run, modules, layers)  # type: ignore[method-assign]
    for module in modules[1:]:
        module.forward = _passed  # type: ignore[method-assign]


def _passed(x: Tensor) -> Tensor:
    return x


def _run(modules: Sequence[ConvLayer], layers: Sequence[ChainLayer], x: Tensor) -> Tensor:
    """Map (N, c_in, H, W) to what the last of a chain's modules yields."""
    # Of one image a norm may have nothing to normalise by, which torch says; of none there is nothing to compute.
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or len(x) < 2:
        for module in modules:
            x = ConvLayer.forward(module, x)
        return x
    parameters: list[Tensor | None] = []
    for module, layer in zip(modules, layers, strict=True):
        norm = module.norm if layer.epsilon is not None else None
        parameters += [module.conv.weight, *((norm.weight, norm.bias) if norm is not None else (None, None))]
    out: Tensor = Chain.apply(x, layers, *parameters)
    last = modules[-1]
    return out if layers[-1].epsilon is not None else last.activation(last.norm(out))


def _as_product(module: ConvLayer, x: Tensor) -> Tensor:
    """Map (N, c_in, 1, 1) to (N, c_out, 1, 1): a convolution of one pixel is a product."""
    out = F.linear(x.flatten(1), module.conv.weight.flatten(1), module.conv.bias)
    activated: Tensor = module.activation(module.norm(out[:, :, None, None]))
    return activated
