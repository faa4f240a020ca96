"""The weights of a network inside another one: views of the other's, whose gradients are handed to it."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Shape, slices_within


class NestedWeights:
    """Slices of a network's parameters.

    Args:
        shapes: of the inner tensors, by the names they have in the outer network.
        outer: its parameters.
    """

    def __init__(self, shapes: Mapping[str, Shape], outer: Mapping[str, nn.Parameter]) -> None:
        self._outer = {name: outer[name] for name in shapes}
        self._slices = slices_within(shapes, {name: tuple(tensor.shape) for name, tensor in self._outer.items()})

    def views(self) -> Tensors:
        """Return the slices, as views of the outer network's memory and apart from its gradients."""
        return {name: tensor.detach()[self._slices[name]] for name, tensor in self._outer.items()}

    def push_gradients(self, own: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Add the gradients of parameters that hold the views to the slices of the outer ones, and forget them."""
        for name, parameter in own:
            if parameter.grad is not None:
                outer = self._outer[name]
                if outer.grad is None:
                    outer.grad = torch.zeros_like(outer)
                outer.grad[self._slices[name]] += parameter.grad
                parameter.grad = None
