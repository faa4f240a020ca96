"""Private runs of federations whose clients' images, own validation images and supernets are under a test's control."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig, Statistics
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.array_files import write_arrays
from fedpareto.training.data.image_data import ImageData
from fedpareto.training.rounds import evaluation, merge_check
from helpers.runs.federation import micro_config

#: Clients of a federation, the images of each, and their classes.
CLIENTS, IMAGES, CLASSES = 4, 40, 10


def client_images(seed: int = 0, count: int = IMAGES) -> NDArray[np.uint8]:
    """Return noise of 8 × 8 pixels in three channels."""
    return np.random.default_rng(seed).integers(256, size=(count, 8, 8, 3), dtype=np.uint8)


def federation_of(
    folder: Path, first: NDArray[np.uint8], statistics: Statistics = "withheld", **changes: Any
) -> RunConfig:
    """Return a private run whose client 0 has the images ``first``; all else is the same whatever they are."""
    folder.mkdir(parents=True, exist_ok=True)
    others = [client_images(seed) for seed in range(1, CLIENTS)]
    clients = np.repeat(np.arange(CLIENTS), [len(first), *map(len, others)])
    held_out = client_images(99, 60)
    images = np.concatenate([first, *others])
    data = ImageData(
        images,
        np.arange(len(images)) % CLASSES,
        clients=clients,
        validation=(held_out, np.arange(len(held_out)) % CLASSES),
    )
    write_arrays(folder / "images", data)
    config = micro_config(
        folder,
        rounds=1,
        data=DataConfig("arrays", str(folder / "images")),
        partition=PartitionConfig("natural"),
        clients=ClientsConfig(count=CLIENTS, per_round=CLIENTS),
        privacy=PrivacyConfig(clip=1.0, noise=1.0, statistics=statistics),
        evaluation=EvaluationConfig(every=1, probes=3, calibration_images=32, batch_size=32),
    )
    return dataclasses.replace(config, **changes)


def hold_supernet_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the merge, whose noise hides what clients trained, and for the clock of the server's own work."""
    monkeypatch.setattr(merge_check, "merge", lambda run, results, models: None)
    monkeypatch.setattr(evaluation, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
