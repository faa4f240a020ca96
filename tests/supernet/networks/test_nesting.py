"""The nested start: every network begins as the smallest one inside it, and everything in it can still learn."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks.strategies import architectures, narrow_resnet, preset, runs, tiny_space
from helpers.runs.federation import micro_config
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture, Stage
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.genes import decode, smallest_genes
from fedpareto.supernet.networks.nesting import nested_start
from fedpareto.supernet.networks.weights import Tensors, extract, forward, initial_tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space import Norm, SearchSpace
from fedpareto.training.config.methods import FedParetoConfig
from fedpareto.training.randomness import torch_stream
from fedpareto.training.setup import new_run


def _nested(space: SearchSpace) -> Tensors:
    return nested_start(space, initial_tensors(space, torch.Generator().manual_seed(0)))


def _smallest(space: SearchSpace, resolution: int) -> Architecture:
    return dataclasses.replace(decode(space, smallest_genes(space)), resolution=resolution)


def _logits(space: SearchSpace, tensors: Tensors, architecture: Architecture) -> torch.Tensor:
    side = architecture.resolution
    images = torch.randn(4, space.in_channels, side, side, generator=torch.Generator().manual_seed(1))
    return forward(space, tensors, architecture, images)


def _without_ratio_one(space: SearchSpace) -> SearchSpace:
    """Blocks of ratio 1 have no expand layer: nothing that larger ones could begin as."""
    return dataclasses.replace(space, expands=tuple(ratio for ratio in space.expands if ratio != 1))


_SPACES = {
    "tiny": _without_ratio_one(tiny_space()),
    "resnet": narrow_resnet(),
    "resnet-relu": dataclasses.replace(
        narrow_resnet(),
        stages=tuple(dataclasses.replace(stage, branch_activation=True) for stage in narrow_resnet().stages),
    ),
    "resnet-no-norm": dataclasses.replace(narrow_resnet(), norm="none"),
}


@pytest.mark.slow
@runs(40)
@given(data=st.data(), name=st.sampled_from(["tiny", "resnet", "resnet-no-norm"]))
def test_every_network_begins_as_the_smallest(data: st.DataObject, name: str) -> None:
    space = _SPACES[name]
    tensors, architecture = _nested(space), data.draw(architectures(space))
    expected = _logits(space, tensors, _smallest(space, architecture.resolution))
    torch.testing.assert_close(_logits(space, tensors, architecture), expected, rtol=1e-4, atol=1e-5)


def test_what_the_smallest_network_has_is_as_it_was_drawn() -> None:
    space = _SPACES["tiny"]
    drawn = initial_tensors(space, torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in drawn.items()}
    smallest = decode(space, smallest_genes(space))
    nested = nested_start(space, drawn)
    for name, tensor in extract(space, nested, smallest).items():
        assert torch.equal(tensor, extract(space, drawn, smallest)[name]), name
    assert all(torch.equal(drawn[name], before[name]) for name in before)
    assert list(nested) == list(drawn)


_ZEROS: list[tuple[str, Norm]] = [
    ("tiny", "batch"),
    ("tiny", "group"),
    ("resnet", "batch"),
    ("resnet", "group"),
    ("resnet", "none"),
    ("resnet-relu", "batch"),
    ("resnet-relu", "none"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "norm"), _ZEROS)
def test_zeros_learn(family: str, norm: Norm) -> None:
    """Of the largest network: the first step moves what scales an extra block, the second what is inside it."""
    space = dataclasses.replace(_SPACES[family], norm=norm)
    tensors = {name: tensor.requires_grad_() for name, tensor in _nested(space).items()}
    zeros = {name: tensor.detach() == 0 for name, tensor in tensors.items() if not name.endswith("bias")}
    optimizer = torch.optim.SGD(tensors.values(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        logits = _logits(space, tensors, supernet_architecture(space))
        torch.nn.functional.cross_entropy(logits, torch.arange(4) % space.classes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    began = {name: mask for name, mask in zeros.items() if mask.any()}
    assert len(began) > 5
    for name, mask in began.items():
        # Not all: gates and ReLUs may be silent on all of four images.
        assert (tensors[name][mask] != 0).float().mean() > 0.2, name


def test_a_shortcut_that_only_the_smallest_has_is_not_made_up_for() -> None:
    """As documented: stage 0 of this preset is as wide as the stem in the smallest network alone."""
    space = preset("mobilenet-cifar")
    tensors, smallest = _nested(space), _smallest(space, 32)
    largest = supernet_architecture(space)
    wider = [dataclasses.replace(smallest, stages=_with(smallest, largest, number)) for number in range(5)]
    with torch.no_grad():
        expected = _logits(space, tensors, smallest)
        apart = [float((_logits(space, tensors, each) - expected).abs().max()) for each in wider]
    assert apart[0] > 0.01
    assert max(apart[1:]) < 1e-3


def _with(smallest: Architecture, largest: Architecture, number: int) -> tuple[Stage, ...]:
    """The smallest network's stages with one of the largest's."""
    return tuple(of.stages[s] for s, of in enumerate([smallest] * number + [largest] + [smallest] * (4 - number)))


@pytest.mark.parametrize(
    ("changes", "nested"),
    [
        ({"method": "fedpareto"}, True),
        ({"method": "fedpareto", "fedpareto": FedParetoConfig(nested_start=False)}, False),
        ({"method": "deepfednas"}, False),
        ({"method": "cotrain"}, False),
    ],
)
def test_fedpareto_begins_nested(tmp_path: Path, changes: dict[str, Any], nested: bool) -> None:
    prepared = new_run(micro_config(tmp_path, **changes), SILENT)
    drawn = initial_tensors(prepared.space, torch_stream(prepared.config.seed, "initialisation"))
    expected = nested_start(prepared.space, drawn) if nested else drawn
    tensors = prepared.checkpoint.models.supernet
    assert all(torch.equal(tensors[name], expected[name]) for name in drawn)
    assert any(not torch.equal(nested_start(prepared.space, drawn)[name], drawn[name]) for name in drawn)
