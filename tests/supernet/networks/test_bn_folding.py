import pytest
import torch
from helpers.networks.strategies import architectures, narrow_resnet, runs, spaces_with_architectures
from helpers.runs.exports import with_random_norms
from helpers.runs.federation import micro_space
from hypothesis import given
from torch import nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, largest_genes
from fedpareto.supernet.networks.bn_folding import folded
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace


def _check(space: SearchSpace, architecture: Architecture) -> nn.Module:
    network = with_random_norms(build_network(space, architecture, running_statistics=True).eval())
    side = architecture.resolution
    images = torch.randn(3, space.in_channels, side, side)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = folded(network)
    with torch.inference_mode():
        expected, found = network(images), plain(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return plain


@given(spaces_with_architectures())
@runs(20, shrink=False)
def test_folded_networks_of_user_spaces_compute_the_same(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    kinds = {type(module) for module in _check(space, architecture).modules()}
    assert nn.BatchNorm2d not in kinds
    assert (nn.GroupNorm in kinds) == (space.norm == "group")


@given(architectures(narrow_resnet()))
@runs(5, shrink=False)
def test_folded_resnets_compute_the_same(architecture: Architecture) -> None:
    _check(narrow_resnet(), architecture)


def test_folding_needs_running_statistics() -> None:
    space = micro_space()
    network = build_network(space, decode(space, largest_genes(space)))
    with pytest.raises(ValueError, match="without running statistics"):
        folded(network)
