"""Weights of the supernet: initialisation, views and copies of a subnet's slices, and forward on them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.layer_table import LayerRow, architecture_rows
from fedpareto.supernet.networks.network import Network, build_network
from fedpareto.supernet.slices import row_shapes, slices_within, supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace

Tensors = dict[str, Tensor]


def initial_tensors(space: SearchSpace, generator: torch.Generator) -> Tensors:
    """Draw the initial tensors of the supernet, those of its largest architecture.

    Convolutions are normal with variance 2/fan_out (He et al., 2015), linear layers normal with standard
    deviation 1/sqrt(fan_in), norms the identity, biases zero. Without norms all of them are uniform within
    ±1/sqrt(fan_in), torch's own draw, which DeepFedNAS's code begins with: at its constant rate of 0.1 the loss leaves
    its plateau after some hundred steps.
    """
    draw = _unnormed if space.norm == "none" else _initial
    tensors: Tensors = {}
    for row in architecture_rows(space, supernet_architecture(space)):
        for name, shape in row_shapes(row).items():
            tensors[name] = draw(name, shape, row, generator)
    return tensors


def views(space: SearchSpace, tensors: Mapping[str, Tensor], architecture: Architecture) -> Tensors:
    """Return the slices of ``tensors`` that ``architecture`` owns, without copying.

    The tensors are the supernet's or those of any network around ``architecture``, itself included.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    owned = slices_within(tensor_shapes(space, architecture), shapes)
    return {name: tensors[name][index] for name, index in owned.items()}


def extract(space: SearchSpace, tensors: Mapping[str, Tensor], architecture: Architecture) -> Tensors:
    """Return the subnet's own state dict: contiguous copies of the slices that ``architecture`` owns.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    return {
        name: view.detach().clone(memory_format=torch.contiguous_format)
        for name, view in views(space, tensors, architecture).items()
    }


def forward(space: SearchSpace, tensors: Mapping[str, Tensor], architecture: Architecture, images: Tensor) -> Tensor:
    """Run ``architecture`` on the supernet's own tensors; gradients reach them through the views.

    BatchNorm normalises by the batch. Maps (N, channels, H, W) to logits (N, classes).

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    network = build_network(space, architecture, device="meta")
    logits: Tensor = functional_call(network, views(space, tensors, architecture), (images,), strict=True)
    return logits


def network_with(
    space: SearchSpace,
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    *,
    running_statistics: bool = False,
) -> Network:
    """Return the network of ``architecture`` holding ``tensors`` themselves as its parameters.

    Running statistics that are not among the tensors start at mean 0 and variance 1.

    Raises:
        ArchitectureError: the architecture is not in the space.
        ValueError: the tensors are not those of the architecture.
    """
    network = build_network(space, architecture, running_statistics=running_statistics, device="meta")
    keys = network.load_state_dict(dict(tensors), strict=False, assign=True)
    parameters = dict(network.named_parameters())
    absent = [name for name in keys.missing_keys if name in parameters]
    if keys.unexpected_keys or absent:
        raise ValueError(f"tensors do not fit the architecture: lacks {absent}, has too {keys.unexpected_keys}")
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_mean.is_meta:
            for name, buffer in list(norm.named_buffers(recurse=False)):
                # Not like a tensor on the meta device: that would import torch's symbolic shapes, and with them sympy.
                norm.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype, device=norm.weight.device))
            norm.reset_running_stats()
    return network


def _initial(name: str, shape: tuple[int, ...], row: LayerRow, generator: torch.Generator) -> Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if row.layer.kind == "linear":
        return torch.randn(shape, generator=generator) / math.sqrt(row.c_in)
    fan_out = row.c_out * row.kernel**2 / row.groups
    return torch.randn(shape, generator=generator) * math.sqrt(2 / fan_out)


def _unnormed(name: str, shape: tuple[int, ...], row: LayerRow, generator: torch.Generator) -> Tensor:
    del name
    fan_in = row.c_in * row.kernel**2 // row.groups
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)
