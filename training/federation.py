"""The federation a run's files describe: its images, its clients and what they train, how it is evaluated."""

from pathlib import Path

import torch

from cache.entries import Entry
from cache.file import Cache
from supernet.errors import UserError
from supernet.space import SearchSpace
from training.client import Recipe
from training.clients import capabilities
from training.config import DataConfig, RunConfig
from training.curriculum import Assigner, training_memory
from training.data.augment import Augmentation
from training.data.images import ImageSet
from training.data.sources import load_images
from training.engines.in_process import InProcessEngine
from training.evaluation import Evaluator
from training.execution import Profile
from training.randomness import torch_stream
from training.run_folder import Split


def make_engine(
    config: RunConfig, space: SearchSpace, split: Split, data: ImageSet, profile: Profile
) -> InProcessEngine:
    """Return the federation of a run on this machine; ``data`` are all its training images."""
    members = [torch.tensor(indices) for indices in split.clients]
    return InProcessEngine(data, members, recipe_of(config, space, split), profile)


def make_evaluator(
    config: RunConfig, space: SearchSpace, split: Split, training: ImageSet, held_out: ImageSet
) -> Evaluator:
    """Return an evaluator on ``held_out`` images, calibrated with a fixed draw of the clients' images."""
    pool = torch.tensor([index for members in split.clients for index in members])
    order = torch.randperm(len(pool), generator=torch_stream(config.seed, "calibration"))
    chosen = pool[order[: config.evaluation.calibration_images]]
    return Evaluator(space, training.subset(chosen), held_out, split.normalisation, config.evaluation.batch_size)


def make_assigner(config: RunConfig, space: SearchSpace, cache: Cache) -> Assigner:
    """Return the curriculum of a run.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    return Assigner(config.curriculum, space, cache.entries, capabilities(config.clients), config.client.batch)


def able_clients(config: RunConfig, entry: Entry) -> list[int]:
    """Return the clients of a run that can train ``entry``."""
    needed = training_memory(entry, config.client.batch)
    return [client for client, kind in enumerate(capabilities(config.clients)) if kind.runs(entry.macs, needed)]


def _augmentation(data: DataConfig) -> Augmentation:
    return Augmentation(
        crop=data.crop or 0,
        flip=bool(data.flip),
        cutout=data.cutout or 0,
        randaugment=data.randaugment,
        magnitude=data.magnitude,
        mixup=data.mixup,
        cutmix=data.cutmix,
    )


def recipe_of(config: RunConfig, space: SearchSpace, split: Split) -> Recipe:
    """Return the local training of a run."""
    return Recipe(space, config.client, _augmentation(config.data), split.normalisation)


def training_images_of(folder: Path, config: RunConfig, space: SearchSpace, split: Split) -> ImageSet:
    """Return the training images of the run in ``folder``.

    Raises:
        UserError: they are missing, or are not those the run was started with.
    """
    data = load_training_images(config, space)
    if data.digest() != split.digest or data.classes != split.classes:
        raise UserError(f"the images in {config.data.root} are not those {folder} was started with; restore them")
    return data


def load_training_images(config: RunConfig, space: SearchSpace) -> ImageSet:
    """Return the training images of a configuration, validation included.

    Raises:
        UserError: they are missing or cannot be read.
    """
    data = config.data
    return load_images(data.name, data.root, "train", space.resolutions[-1], download=data.download)
