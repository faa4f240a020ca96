import dataclasses

import numpy as np
import pytest
import torch
from helpers.networks.strategies import preset, runs, spaces_with_architectures, tiny_space
from hypothesis import given
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v3_large

from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.genes import decode, encode, random_genes
from fedpareto.supernet.networks.network import Network, build_network
from fedpareto.supernet.space import SearchSpace

#: MobileNetV3-Large of torchvision as an architecture: (width, [(kernel, expand), …]).
_V3_LARGE = (
    (24, [(3, 4), (3, 3)]),
    (40, [(5, 3)] * 3),
    (80, [(3, 6), (3, 2.5), (3, 2.3), (3, 2.3)]),
    (112, [(3, 6)] * 2),
    (160, [(5, 6)] * 3),
)


def _v3_large(resolution: int) -> tuple[SearchSpace, Architecture]:
    stages = tuple(Stage(width, tuple(Block(e, k) for k, e in blocks)) for width, blocks in _V3_LARGE)
    space = dataclasses.replace(
        preset("mobilenet-imagenet"), expands=(2.3, 2.5, 3.0, 4.0, 6.0), resolutions=(resolution,)
    )
    return space, Architecture("mobilenet", resolution, 16, stages)


def _some_network(space: SearchSpace, *, running_statistics: bool = False) -> Network:
    genes = random_genes(space, 1, np.random.default_rng(5))[0]
    return build_network(space, decode(space, genes), running_statistics=running_statistics)


def test_macs_and_params_of_mobilenet_v3_large_are_torchvisions() -> None:
    space, architecture = _v3_large(224)
    scores = score(space, encode(space, architecture))
    with torch.device("meta"):
        oracle = mobilenet_v3_large()
    with FlopCounterMode(display=False) as counter:
        oracle(torch.empty(2, 3, 224, 224, device="meta"))
    assert scores.macs[0] * 4 == counter.get_total_flops()
    # The hidden layer of this project's head has no bias; torchvision's has one.
    assert scores.params[0] == sum(p.numel() for p in oracle.parameters()) - 1280


def test_logits_of_mobilenet_v3_large_are_torchvisions() -> None:
    torch.manual_seed(0)
    space, architecture = _v3_large(64)
    network, oracle = build_network(space, architecture), mobilenet_v3_large()
    oracle.classifier[2].p = 0.0
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    theirs = [p for name, p in oracle.named_parameters() if name != "classifier.0.bias"]
    with torch.no_grad():
        oracle.classifier[0].bias.zero_()
        for parameter, source in zip(network.parameters(), theirs, strict=True):
            if source.dim() == 1:
                source.uniform_(0.5, 1.5)
            parameter.copy_(source)
        images = torch.randn(4, 3, 64, 64)
        torch.testing.assert_close(network(images), oracle(images), rtol=1e-4, atol=1e-5)


@given(spaces_with_architectures())
@runs(20, shrink=False)
def test_every_architecture_maps_images_to_logits(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    network = build_network(space, architecture, device="meta")
    side = architecture.resolution
    logits = network(torch.empty(2, space.in_channels, side, side, device="meta"))
    assert logits.shape == (2, space.classes)


def test_batch_norm_keeps_no_running_statistics() -> None:
    network = _some_network(tiny_space())
    assert list(network.named_buffers()) == []
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trained = network.train()(images)
    assert torch.equal(network.eval()(images), trained)
    assert not torch.allclose(network(images[:2]), trained[:2], atol=1e-3)


def test_running_statistics_are_the_mean_over_batches() -> None:
    network = _some_network(tiny_space(), running_statistics=True).train()
    norm = network.get_submodule("stem.entry.norm")
    conv = network.get_submodule("stem.entry.conv")
    batches = torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for batch in batches:
        network(batch)
    expected = torch.stack([conv(batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    alone = network.eval()(batches[0][:1])
    torch.testing.assert_close(network(batches[0])[:1], alone, rtol=1e-4, atol=1e-5)


def test_group_norm_normalises_groups_of_8_channels_of_each_image() -> None:
    space = dataclasses.replace(tiny_space(), norm="group")
    network = _some_network(space, running_statistics=True)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert all(norm.num_channels == 8 * norm.num_groups for norm in norms)
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert list(network.named_buffers()) == []
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


def test_a_meta_network_allocates_nothing() -> None:
    space = preset("mobilenet-imagenet")
    genes = random_genes(space, 1, np.random.default_rng(0))[0]
    network = build_network(space, decode(space, genes), device="meta")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_an_architecture_outside_the_space_cannot_be_built() -> None:
    _, architecture = _v3_large(224)
    with pytest.raises(ArchitectureError, match="not in mobilenet-cifar"):
        build_network(preset("mobilenet-cifar"), architecture)
