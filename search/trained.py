"""Subnets of a trained run: extracted, calibrated, evaluated."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cache.entries import Entry
from search.subnet import SubnetInfo
from supernet.space import SearchSpace
from training.checkpoint import best_checkpoint, load_checkpoint, newest_checkpoint
from training.data.images import ImageSet
from training.data.sources import load_images
from training.run_folder import read_run_config, read_split
from training.setup import make_evaluator, training_images_of


@dataclasses.dataclass(frozen=True)
class TrainedSubnet:
    """A calibrated subnet of a run, what its file says, and what it reached."""

    network: nn.Module
    info: SubnetInfo


def extract_trained(
    folder: Path,
    space: SearchSpace,
    entry: Entry,
    which: Literal["best", "newest"],
    *,
    test: bool,
    report: dict[str, Any],
) -> TrainedSubnet:
    """Extract ``entry``'s subnet from a run's checkpoint, calibrate it and measure its accuracy.

    ``report`` is completed by the checkpoint, ``validation_accuracy`` and, with ``test``, ``test_accuracy``.
    Everything runs on the CPU.

    Raises:
        UserError: the run has no whole checkpoint, or its images are missing or changed.
    """
    config, split = read_run_config(folder), read_split(folder)
    checkpoint_path = best_checkpoint(folder) if which == "best" else newest_checkpoint(folder)
    checkpoint = load_checkpoint(checkpoint_path, space)
    training = training_images_of(folder, config, space, split)
    held_out: dict[str, ImageSet] = {"validation": training.subset(torch.tensor(split.validation))}
    if test:
        held_out["test"] = load_images(config.data.name, config.data.root, "test", space.resolutions[-1])
    evaluator = make_evaluator(config, space, split, training, held_out["validation"])
    network = evaluator.subnet(checkpoint.tensors, entry.architecture)
    accuracies = {
        f"{name}_accuracy": dataclasses.replace(evaluator, held_out=images).accuracy(
            network, entry.architecture.resolution
        )
        for name, images in held_out.items()
    }
    full = {**report, "checkpoint": str(checkpoint_path), "round": checkpoint.state.round, **accuracies}
    info = SubnetInfo(space, entry.architecture, split.classes, split.normalisation, full)
    return TrainedSubnet(network, info)
