"""A federation small enough for tests: a micro space, the digits, and runs on them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fedpareto.cache.build import SolverSettings, compute_cache
from fedpareto.cache.cache_file import Cache, write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.nsga2.solver import Nsga2Settings
from fedpareto.supernet.space import HeadSpec, SearchSpace, StageSpec, StemSpec
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.tracking import TrackingConfig
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.execution.profile import Profile

#: Two narrow stages at 8×8: a training step takes a few milliseconds.
MICRO = SearchSpace(
    name="micro",
    family="mobilenet",
    stem=StemSpec(width=8, stride=1, activation="hswish"),
    stages=(StageSpec(16, stride=2), StageSpec(24, stride=2, activation="hswish", se=True)),
    resolutions=(8,),
    depths=(1, 2),
    kernels=(3, 5),
    expands=(2, 3),
    width_multipliers=(0.5, 1.0),
    head=HeadSpec(32, 32),
)

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def micro_space(**changes: Any) -> SearchSpace:
    return dataclasses.replace(MICRO, **changes)


def random_images(count: int, side: int = 8, classes: int = 4, seed: int = 0) -> ImageSet:
    """Noise with labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def micro_recipe(space: SearchSpace = MICRO, **client: Any) -> LocalRecipe:
    config = ClientConfig(**{"epochs": 1, "batch_size": 8, "lr": 0.05, **client})
    return LocalRecipe(space, config, Augmentation(crop=1), NORMALISATION)


def micro_cache(space: SearchSpace = MICRO, entries: int = 6) -> Cache:
    method = SolverSettings(nsga2=Nsga2Settings(population=20, generations=10))
    return compute_cache(space, space.fitness, Limits(), entries, method)


def write_space(folder: Path, space: SearchSpace = MICRO) -> Path:
    """Write the space as a YAML file (JSON is YAML)."""
    path = folder / "micro.yaml"
    path.write_text(json.dumps(space_to_mapping(space)))
    return path


def write_micro(folder: Path, space: SearchSpace = MICRO) -> tuple[Path, Path]:
    """Write a micro space and its cache; return both paths."""
    cache = folder / "cache.jsonl"
    write_cache(cache, micro_cache(space))
    return write_space(folder, space), cache


def write_two_classes(root: Path, seed: int = 0) -> Path:
    """Write image files of two classes as ROOT/train/CLASS and ROOT/test/CLASS."""
    generator = torch.Generator().manual_seed(seed)
    for split in ("train", "test"):
        for index, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(60):
                noise = torch.randint(120, (8, 8, 3), generator=generator) + 100 * index
                Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{number:03d}.png")
    return root


def micro_config(folder: Path, of: SearchSpace = MICRO, /, **changes: Any) -> RunConfig:
    """Return the configuration of a short run on the digits, its output in ``folder``."""
    space, cache = write_micro(folder, of)
    config = RunConfig(
        space=str(space),
        output=str(folder / "run"),
        cache=str(cache),
        rounds=3,
        device="cpu",
        precision="fp32",
        execution=Profile().chosen(),
        data=DataConfig(name="digits"),
        partition=PartitionConfig(alpha=1.0),
        clients=ClientsConfig(count=6, per_round=3),
        client=ClientConfig(epochs=1, batch_size=16, lr=0.05),
        evaluation=EvaluationConfig(every=2, probes=3, calibration_images=64, batch_size=64),
        checkpoint=CheckpointConfig(every=1, keep=2),
        tracking=TrackingConfig(wandb="off", progress=False),
    )
    config = dataclasses.replace(config, **changes)
    if config.spec.single_network:
        # They evaluate the one network.
        config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, probes=5))
    return config


def arguments_of(config: RunConfig) -> list[str]:
    """Return the command line of ``train-supernet`` that stands for ``config``."""
    path = Path(str(config.output)).with_suffix(".yaml")
    from fedpareto.training.config.run import write_config

    write_config(path, config)
    return ["--config", str(path)]


def finished_run(folder: Path, **changes: Any) -> Path:
    """Train a run as the command does; return its folder."""
    from fedpareto.training.cli import main

    with pytest.raises(SystemExit) as caught:
        main(arguments_of(micro_config(folder, **changes)))
    assert caught.value.code == 0
    return folder / "run"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
