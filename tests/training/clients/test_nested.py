"""Weights of a network inside another one."""

import torch
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, random_tensors, same_bytes, smallest
from torch import nn

from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.slices import slices, tensor_shapes
from fedpareto.training.clients.nested import NestedWeights


def _outer(tensors: Tensors) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(tensor) for name, tensor in tensors.items()}


def test_the_views_are_the_slices_and_follow_the_outer_weights() -> None:
    tensors = random_tensors()
    weights = NestedWeights(tensor_shapes(MICRO, smallest()), _outer(tensors)).views()
    assert same_bytes(weights, views(MICRO, tensors, smallest()))
    for tensor in tensors.values():
        tensor.add_(1)
    assert same_bytes(weights, views(MICRO, tensors, smallest()))
    assert not any(view.requires_grad for view in weights.values())


def test_gradients_are_added_to_the_slices_and_forgotten() -> None:
    outer = _outer(random_tensors())
    weights = NestedWeights(tensor_shapes(MICRO, smallest()), outer)
    own = {name: nn.Parameter(view) for name, view in weights.views().items()}
    untouched = "stages.0.0.project.conv.weight"
    for number in (1.0, 2.0):
        for name, parameter in own.items():
            parameter.grad = None if name == untouched else torch.full_like(parameter, number)
        weights.push_gradients(own.items())
        assert all(parameter.grad is None for parameter in own.values())
    for name, parameter in outer.items():
        if name not in own or name == untouched:
            assert parameter.grad is None
            continue
        expected = torch.zeros_like(parameter)
        expected[slices(MICRO, smallest())[name]] = 3.0
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, expected)
    assert len(outer) == len(tensor_shapes(MICRO, largest()))
