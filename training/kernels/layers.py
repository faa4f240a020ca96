"""Which layers of a network are computed by the kernels."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.network import Block, ConvLayer, Linear
from training.kernels.chain import Chain, Layer

_ACTIVATIONS = {nn.Identity: "none", nn.ReLU: "relu", nn.Hardswish: "hswish"}


def layer_of(module: nn.Module) -> Layer | None:
    if type(module) is not ConvLayer:
        return None
    conv, norm = module.conv, module.norm
    if conv.bias is not None or conv.out_channels % 8:
        return None
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups == 1:
        kind = "pointwise" if kernel == stride == 1 and conv.in_channels % 8 == 0 else "dense"
    elif conv.groups == conv.in_channels == conv.out_channels:
        kind = "depthwise"
    else:
        return None
    activation = _ACTIVATIONS.get(type(module.activation))
    if isinstance(norm, nn.BatchNorm2d) and not norm.track_running_stats and norm.affine and activation:
        return Layer(kind, kernel, stride, norm.eps, activation)
    return Layer(kind, kernel, stride, None, "none") if kind == "depthwise" else None


def run_chain(modules: Sequence[ConvLayer], layers: Sequence[Layer], x: Tensor) -> Tensor:
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        for m in modules:
            x = ConvLayer.forward(m, x)
        return x
    p = []
    for m, l in zip(modules, layers):
        p += [m.conv.weight, m.norm.weight, m.norm.bias] if l.epsilon is not None else [m.conv.weight, None, None]
    out = Chain.apply(x, layers, *p)
    if layers[-1].epsilon is None:
        out = modules[-1].activation(modules[-1].norm(out))
    return out


def squeezed(module: ConvLayer, x: Tensor) -> Tensor:
    conv = module.conv
    out = F.linear(x.flatten(1), conv.weight.flatten(1), conv.bias)
    return module.activation(out[:, :, None, None])


def use(network: nn.Module) -> None:
    for block in network.modules():
        if not isinstance(block, Block):
            continue
        groups, current = [], []
        for kind, name in block.steps:
            module = block.get_submodule(name)
            if kind in ("squeeze", "excite"):
                module.forward = functools.partial(squeezed, module)
            layer = layer_of(module)
            if layer is None:
                current = []
                continue
            if current and layer.kind != "dense" and layer.epsilon is not None and current[-1][1].epsilon is not None:
                current.append((module, layer))
            else:
                current = [(module, layer)]
                groups.append(current)
        for group in groups:
            modules, layers = [m for m, _ in group], tuple(l for _, l in group)
            modules[0].forward = functools.partial(run_chain, modules, layers)
            for m in modules[1:]:
                m.forward = lambda x: x
