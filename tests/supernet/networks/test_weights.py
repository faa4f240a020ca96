import dataclasses
import math
from operator import attrgetter

import numpy as np
import pytest
import torch
from helpers.networks.strategies import (
    architectures,
    narrow_resnet,
    preset,
    runs,
    spaces_with_architectures,
    tiny_space,
)
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, intersection, random_genes, smallest_genes
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.networks.weights import Tensors, extract, forward, initial_tensors, network_with, views
from fedpareto.supernet.slices import slices, supernet_architecture, tensor_shapes
from fedpareto.supernet.space import Norm, SearchSpace


def _random_tensors(space: SearchSpace, seed: int = 0) -> Tensors:
    """Supernet tensors with norm weights and all biases random: identities would hide a wrong slice."""
    generator = torch.Generator().manual_seed(seed)
    tensors = initial_tensors(space, generator)
    for name, tensor in tensors.items():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
            if name.endswith("bias"):
                tensor.sub_(1)
    return tensors


def _images(space: SearchSpace, architecture: Architecture, count: int = 2) -> torch.Tensor:
    side = architecture.resolution
    return torch.randn(count, space.in_channels, side, side, generator=torch.Generator().manual_seed(1))


def _check_forward(space: SearchSpace, architecture: Architecture) -> None:
    tensors = _random_tensors(space)
    images = _images(space, architecture)
    network = network_with(space, architecture, extract(space, tensors, architecture))
    with torch.no_grad():
        assert torch.equal(forward(space, tensors, architecture, images), network(images))


def _with_norm(name: str, norm: Norm) -> SearchSpace:
    return dataclasses.replace(preset(name), norm=norm)


def _narrow_resnet(norm: Norm) -> SearchSpace:
    return dataclasses.replace(narrow_resnet(), norm=norm)


@given(spaces_with_architectures())
@runs(40, shrink=False)
def test_the_supernet_computes_what_the_extracted_network_computes(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    _check_forward(*drawn)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@given(st.data())
@runs(15, shrink=False)
def test_the_tiny_supernet_computes_what_the_extracted_network_computes(norm: Norm, data: st.DataObject) -> None:
    space = _with_norm("mobilenet-tiny", norm)
    _check_forward(space, data.draw(architectures(space)))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@given(st.data())
@runs(6, shrink=False)
def test_the_cifar_supernet_computes_what_the_extracted_network_computes(norm: Norm, data: st.DataObject) -> None:
    space = _with_norm("mobilenet-cifar", norm)
    _check_forward(space, data.draw(architectures(space)))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@given(st.data())
@runs(2, shrink=False)
def test_the_imagenet_supernet_computes_what_the_extracted_network_computes(norm: Norm, data: st.DataObject) -> None:
    space = _with_norm("mobilenet-imagenet", norm)
    _check_forward(space, data.draw(architectures(space)))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@given(st.data())
@runs(10, shrink=False)
def test_a_resnet_supernet_computes_what_the_extracted_network_computes(norm: Norm, data: st.DataObject) -> None:
    space = _narrow_resnet(norm)
    _check_forward(space, data.draw(architectures(space)))


@given(spaces_with_architectures())
@runs(20, shrink=False)
def test_gradients_reach_the_slices_alone_and_are_those_of_the_extracted_network(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, architecture = drawn
    whole = {name: tensor.double().requires_grad_() for name, tensor in _random_tensors(space).items()}
    images = _images(space, architecture, count=3).double()
    weights = torch.linspace(-1, 1, 3 * space.classes, dtype=torch.float64).reshape(3, -1)
    torch.autograd.backward((forward(space, whole, architecture, images) * weights).sum())

    network = network_with(space, architecture, extract(space, whole, architecture))
    torch.autograd.backward((network(images) * weights).sum())
    owned = slices(space, architecture)
    for name, tensor in whole.items():
        if name not in owned:
            assert tensor.grad is None
            continue
        assert tensor.grad is not None
        expected = network.get_parameter(name).grad
        torch.testing.assert_close(tensor.grad[owned[name]], expected, rtol=1e-9, atol=1e-12)
        outside = torch.ones_like(tensor, dtype=torch.bool)
        outside[owned[name]] = False
        assert not tensor.grad[outside].any()


def test_every_owned_entry_of_a_layer_gets_a_gradient() -> None:
    space = dataclasses.replace(tiny_space(), norm="group")
    architecture = decode(space, smallest_genes(space))
    tensors = {name: tensor.requires_grad_() for name, tensor in _random_tensors(space).items()}
    torch.autograd.backward(forward(space, tensors, architecture, _images(space, architecture)).square().sum())
    for name, index in slices(space, architecture).items():
        gradient = tensors[name].grad
        assert gradient is not None
        assert gradient[index].any(), name


def _bytes(tensors: Tensors) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tensors.values())


def test_initial_tensors_come_from_the_generator_alone() -> None:
    space, state = tiny_space(), torch.get_rng_state()
    one = _bytes(initial_tensors(space, torch.Generator().manual_seed(7)))
    assert one == _bytes(initial_tensors(space, torch.Generator().manual_seed(7)))
    assert one != _bytes(initial_tensors(space, torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("space", [preset("mobilenet-cifar"), tiny_space(), narrow_resnet()], ids=attrgetter("name"))
def test_initial_tensors_are_those_of_the_largest_network_whatever_the_norm(space: SearchSpace) -> None:
    group = dataclasses.replace(space, norm="group")
    shapes = {key: tuple(t.shape) for key, t in initial_tensors(space, torch.Generator()).items()}
    assert shapes == dict(tensor_shapes(space, supernet_architecture(space)))
    assert shapes == {key: tuple(t.shape) for key, t in initial_tensors(group, torch.Generator()).items()}


def _check_initialisation(space: SearchSpace) -> None:
    tensors = initial_tensors(space, torch.Generator().manual_seed(0))
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif name.endswith("norm.weight"):
            assert (tensor == 1).all()
        else:
            outputs = 1 if "depthwise" in name else tensor.shape[0]
            fan_out = outputs * math.prod(tensor.shape[2:])
            expected = math.sqrt(2 / fan_out) if tensor.dim() == 4 else 1 / math.sqrt(tensor.shape[1])
            # Four standard errors of a sample standard deviation.
            assert float(tensor.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * tensor.numel())), name
            assert abs(float(tensor.mean())) < 5 * expected / math.sqrt(tensor.numel())


@pytest.mark.parametrize("space", [preset("mobilenet-cifar"), narrow_resnet()], ids=attrgetter("name"))
def test_initial_tensors_have_the_documented_distributions(space: SearchSpace) -> None:
    _check_initialisation(space)


def test_initial_tensors_without_norms_are_drawn_as_torch_draws_its_own() -> None:
    space = dataclasses.replace(narrow_resnet(), norm="none")
    tensors = initial_tensors(space, torch.Generator().manual_seed(0))
    network = build_network(space, supernet_architecture(space))
    assert tensors.keys() == dict(network.named_parameters()).keys()
    for name, tensor in tensors.items():
        of = tensors[name.replace("bias", "weight")]
        bound = 1 / math.sqrt(math.prod(of.shape[1:]))
        assert float(tensor.abs().max()) <= bound, name
        for drawn in (tensor, network.get_parameter(name).detach()) if tensor.numel() > 200 else ():
            assert float(drawn.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1), name


def test_a_stem_for_grey_images_is_initialised_like_any_other() -> None:
    _check_initialisation(dataclasses.replace(preset("mobilenet-cifar"), in_channels=1))


def test_views_share_memory_and_copies_do_not() -> None:
    space = tiny_space()
    tensors = _random_tensors(space)
    architecture = decode(space, smallest_genes(space))
    seen, copied = views(space, tensors, architecture), extract(space, tensors, architecture)
    before = {name: tensor.clone() for name, tensor in copied.items()}
    for tensor in tensors.values():
        tensor.add_(1)
    for name, copy in copied.items():
        assert copy.is_contiguous()
        assert torch.equal(copy, before[name])
        assert torch.equal(seen[name], before[name] + 1)


def test_an_extracted_copy_carries_no_gradient() -> None:
    space = tiny_space()
    tensors = {name: tensor.requires_grad_() for name, tensor in _random_tensors(space).items()}
    copied = extract(space, tensors, supernet_architecture(space))
    assert not any(tensor.requires_grad for tensor in copied.values())


def test_a_network_holds_the_given_tensors_themselves_as_trainable_parameters() -> None:
    space = tiny_space()
    architecture = decode(space, random_genes(space, 1, np.random.default_rng(2))[0])
    tensors = extract(space, _random_tensors(space), architecture)
    for name, parameter in network_with(space, architecture, tensors).named_parameters():
        assert parameter.data_ptr() == tensors[name].data_ptr()
        assert parameter.requires_grad


def test_a_network_with_running_statistics_can_be_calibrated_and_evaluated() -> None:
    space = tiny_space()
    architecture = supernet_architecture(space)
    tensors = extract(space, _random_tensors(space), architecture)
    network = network_with(space, architecture, tensors, running_statistics=True)
    images = _images(space, architecture, count=8)
    trained = network.train()(images)
    assert torch.isfinite(network.eval()(images[:1])).all()
    assert torch.equal(network_with(space, architecture, tensors)(images), trained)


def test_tensors_of_another_architecture_are_refused() -> None:
    space = tiny_space()
    tensors = _random_tensors(space)
    smallest, largest = decode(space, smallest_genes(space)), supernet_architecture(space)
    with pytest.raises((ValueError, RuntimeError)):
        network_with(space, largest, extract(space, tensors, smallest))
    with pytest.raises((ValueError, RuntimeError)):
        network_with(space, smallest, extract(space, tensors, largest))
    lacking = extract(space, tensors, smallest)
    del lacking["stem.entry.norm.bias"]
    with pytest.raises(ValueError, match=r"stem\.entry\.norm\.bias"):
        network_with(space, smallest, lacking)


@given(spaces_with_architectures(), st.integers(0, 10**6))
@runs(40, shrink=False)
def test_slices_of_a_networks_own_tensors_are_those_of_the_supernet(
    drawn: tuple[SearchSpace, Architecture], seed: int
) -> None:
    space, outer = drawn
    inner = intersection(space, outer, decode(space, random_genes(space, 1, np.random.default_rng(seed))[0]))
    tensors = _random_tensors(space)
    own = extract(space, tensors, outer)
    for architecture in (inner, outer):
        found, expected = views(space, own, architecture), views(space, tensors, architecture)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
