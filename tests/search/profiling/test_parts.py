import numpy as np
import pytest
import torch
from helpers.networks.latency import names_of
from helpers.networks.spaces import SMALL, SMALL_RESNET
from helpers.networks.strategies import preset, runs, spaces_with_architectures
from hypothesis import given
from torch import nn

from fedpareto.cache.costs.latency.block_names import block_names
from fedpareto.fitness.part_tables import choices_made
from fedpareto.search.profiling.parts import build_part, distinct_choices, input_shape, measurable, ready
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import encode
from fedpareto.supernet.networks.bn_folding import folded
from fedpareto.supernet.networks.network import Network, build_network
from fedpareto.supernet.space import SearchSpace


def _names_in(space: SearchSpace, architecture: Architecture) -> list[str]:
    """Return the names of a network's parts in the order they run."""
    names, made = block_names(space), choices_made(space, encode(space, architecture)[:, None])
    found = [str(names.stem[made.stem[0]])]
    for slots, numbers in zip(names.blocks, made.blocks, strict=True):
        found += [str(n[i[0]]) for n, i in zip(slots, numbers, strict=True) if i[0] < len(n)]
    return [*found, str(names.head[made.head[0]])]


def _parts_with_weights_of(space: SearchSpace, network: Network, architecture: Architecture) -> list[nn.Module]:
    """Return the parts that the names of a network's parts stand for, with the network's own tensors in them."""
    choices, given = distinct_choices(space), iter(network.state_dict().values())
    modules: list[nn.Module] = []
    for name in _names_in(space, architecture):
        module = build_part(space, choices[name]).to_empty(device="cpu")
        module.load_state_dict({key: next(given) for key in module.state_dict()})
        modules.append(module)
    assert next(given, None) is None
    return modules


@runs(25)
@given(spaces_with_architectures())
def test_the_parts_of_a_network_run_one_after_another_are_the_network(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    network = build_network(space, architecture, running_statistics=True)
    parts = nn.Sequential(*_parts_with_weights_of(space, network, architecture)).eval()
    images = torch.randn(2, space.in_channels, architecture.resolution, architecture.resolution)
    with torch.inference_mode():
        assert torch.equal(parts(images), network.eval()(images))
        assert torch.allclose(folded(parts)(images), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("space", [SMALL, SMALL_RESNET, preset("mobilenet-tiny")], ids=lambda space: space.name)
def test_every_block_has_one_choice_that_runs_on_its_input(space: SearchSpace) -> None:
    choices = distinct_choices(space)
    assert sorted(choices) == names_of(space)
    generator = torch.Generator().manual_seed(0)
    for name in np.random.default_rng(0).choice(sorted(choices), 40, replace=False):
        module, example = measurable(space, choices[str(name)], 2, generator)
        assert tuple(example.shape) == input_shape(choices[str(name)].layers(space), 2)
        assert not module.training
        with torch.inference_mode():
            output = module(example)
        assert len(output) == 2
        assert torch.isfinite(output).all()
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def test_the_input_of_a_block_is_in_its_name() -> None:
    for name, choice in distinct_choices(SMALL).items():
        _, channels, side, _ = input_shape(choice.layers(SMALL), 1)
        assert f" {channels}>" in name.split(" + ", maxsplit=1)[0]
        assert name.split(" + ", maxsplit=1)[0].endswith(f"@{side}")


def test_weights_are_those_of_the_generator() -> None:
    choice = next(iter(distinct_choices(SMALL).values()))
    first, again, other = (
        ready(build_part(SMALL, choice), torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
