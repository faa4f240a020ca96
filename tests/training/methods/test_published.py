"""Runs as DeepFedNAS and FEAST are published, in small: what they set trains, and resumed runs end alike."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.federation import MICRO, NORMALISATION, micro_config, random_images
from helpers.runs.simulation import Recorder, same_bytes

from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.networks.weights import Tensors, initial_tensors, network_with
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec
from fedpareto.training.clients.trainer import make_optimizer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.methods import DeepFedNasConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.batches import plain_batches
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import read_run_config
from fedpareto.training.setup import Prepared, assemble, new_run, resumed_run

#: DeepFedNAS's supernet in small: no normalisation, activations before the addition.
_UNNORMED = SearchSpace(
    name="unnormed",
    family="resnet",
    stem=StemSpec(8, multipliers=(1.0,)),
    stages=(StageSpec(16, stride=2, branch_activation=True), StageSpec(32, stride=2, branch_activation=True)),
    resolutions=(8,),
    depths=(1, 2),
    expands=(0.5, 1.0),
    width_multipliers=(0.5, 1.0),
    norm="none",
    fitness=dataclasses.replace(MICRO.fitness, max_effectiveness=5.0),
)
#: FEAST's: one ratio a stage, more blocks.
_SHARED = dataclasses.replace(_UNNORMED, name="shared", norm="batch", depths=(1, 2, 9), expands_per="stage")

_DEEPFEDNAS = {
    "method": "deepfednas",
    "client": ClientConfig(
        epochs=1, batch_size=16, lr=0.1, lr_schedule="constant", momentum=0.0, weight_decay=5e-4, decay_all=True
    ),
    "partition": PartitionConfig(alpha=0.5, balanced=True),
    "deepfednas": DeepFedNasConfig("uniform"),
}
_FEAST = {
    "data": DataConfig(images=500),
    "method": "cotrain",
    "client": ClientConfig(epochs=1, batch_size=16, lr=0.05, weight_decay=1e-4, decay_all=True),
    "clients": ClientsConfig(
        count=6, per_round=3, max_macs=("3M", "5M"), macs_distribution="zipf-ranks", data="proportional", gamma=0.5
    ),
}
_RUNS: list[tuple[SearchSpace, dict[str, Any]]] = [(_UNNORMED, _DEEPFEDNAS), (_SHARED, _FEAST)]


def _trained(prepared: Prepared, rounds: int) -> Tensors:
    """Train until so many rounds are done, checkpoint and all; return the tensors."""
    tracker, start = Recorder(), prepared.checkpoint
    train(
        assemble(prepared, tracker, lambda: start.state.round + len(tracker.records) >= rounds),
        start.state,
        start.models,
    )
    return start.models.supernet


def _config(folder: Path, space: SearchSpace, changes: dict[str, Any]) -> RunConfig:
    folder.mkdir()
    return micro_config(folder, space, **changes)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "changes"), _RUNS, ids=["deepfednas", "feast"])
def test_a_resumed_run_ends_with_the_bytes_of_one_that_was_not_interrupted(
    space: SearchSpace, changes: dict[str, Any], tmp_path: Path
) -> None:
    whole = new_run(_config(tmp_path / "whole", space, changes), SILENT)
    before = {name: tensor.clone() for name, tensor in whole.checkpoint.models.supernet.items()}
    expected = _trained(whole, 3)
    assert all(tensor.isfinite().all() for tensor in expected.values())
    assert any(not torch.equal(before[name], tensor) for name, tensor in expected.items())

    first = new_run(_config(tmp_path / "first", space, changes), SILENT)
    _trained(first, 1)
    assert 0 < load_checkpoint(newest_checkpoint(first.folder), first.space).state.round < 3
    found = _trained(resumed_run(first.folder, read_run_config(first.folder), SILENT), 3)
    assert same_bytes(found, expected)


def test_a_network_without_norms_leaves_its_plateau_at_a_constant_rate() -> None:
    data = random_images(64, classes=2)
    # Two classes that a bright corner tells apart.
    data.loaded()[::2, :, :4, :4] = 255
    tensors = initial_tensors(_UNNORMED, torch.Generator().manual_seed(0))
    network = network_with(_UNNORMED, supernet_architecture(_UNNORMED), tensors).train()
    optimizer = make_optimizer(network, ClientConfig(momentum=0.0, decay_all=True), 0.1)
    losses = []
    for _ in range(60):
        for images, labels in plain_batches(data, 32, 8, NORMALISATION):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]
