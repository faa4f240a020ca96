"""Folding of BatchNorm into the convolution before it, which gives the same function with fewer operations."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fedpareto.supernet.networks.network import ConvLayer


def folded(module: nn.Module) -> nn.Module:
    """Return a copy of a network, or a part of one, in evaluation mode, with its BatchNorms folded into convolutions.

    Exact up to rounding: with running statistics a BatchNorm is a factor and an offset for each channel. GroupNorm
    depends on its input and stays.

    Raises:
        ValueError: a BatchNorm has no running statistics.
    """
    plain = copy.deepcopy(module).eval()
    for layer in plain.modules():
        if isinstance(layer, ConvLayer) and isinstance(layer.norm, nn.BatchNorm2d):
            if layer.norm.running_mean is None:
                raise ValueError("a BatchNorm without running statistics cannot be folded; calibrate the network first")
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
            layer.norm = nn.Identity()
    return plain
