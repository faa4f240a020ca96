"""The federation a run's files describe: its images, its clients and what they train, how it is evaluated."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cache.file import Cache
from supernet.errors import UserError
from supernet.layouts import IntArray
from supernet.space import SearchSpace
from training.capabilities import Capability, capabilities, matched
from training.client import Recipe
from training.config import DataConfig, RunConfig
from training.data.augment import Augmentation
from training.data.images import ImageSet, Normalisation, normalisation_of
from training.data.sources import load_images
from training.data.split import validation_split
from training.engines.in_process import InProcessEngine
from training.engines.protocol import CalibratingEngine, never
from training.evaluation import Evaluator, ProbeEvaluator
from training.execution import Profile
from training.methods.protocol import Ground, Method
from training.methods.table import make_method
from training.partition import partition
from training.randomness import numpy_stream, torch_stream
from training.run_folder import Census, Split


class Federation(Protocol):
    """The clients of a run with their images, simulated or connected."""

    @property
    def split(self) -> Split | Census:
        """What is written of them into the run's folder."""

    def labels(self) -> IntArray | None:
        """Return how many images of each class every client has, (clients, classes); None if only they know."""

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> CalibratingEngine:
        """Return what trains them; where it waits for clients it asks whether it ``should_stop``."""

    def evaluator(self, config: RunConfig, space: SearchSpace) -> ProbeEvaluator:
        """Return what measures probes on validation images."""

    def on_device(self, device: torch.device) -> "Federation":
        """Return the same with what this process holds of its images on ``device``."""


@dataclasses.dataclass(frozen=True)
class SimulatedFederation:
    """All clients in this process.

    Attributes:
        data: the training images, validation included.
        split: which image went where.
    """

    data: ImageSet
    split: Split

    def labels(self) -> IntArray:
        """Return how many images of each class every client has, shape (clients, classes)."""
        labels, classes = self.data.labels.cpu().numpy(), len(self.split.classes)
        return np.stack([np.bincount(labels[np.array(part)], minlength=classes) for part in self.split.clients])

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> InProcessEngine:
        """Return the in-process engine, which waits for nobody."""
        del should_stop
        members = [torch.tensor(indices) for indices in self.split.clients]
        return InProcessEngine(self.data, members, recipe_of(config, space, self.split.normalisation), profile)

    def evaluator(self, config: RunConfig, space: SearchSpace) -> Evaluator:
        """Return an evaluator on the validation images, calibrated with a fixed draw of the clients' images."""
        pool = torch.tensor([index for members in self.split.clients for index in members])
        order = torch.randperm(len(pool), generator=torch_stream(config.seed, "calibration"))
        chosen = pool[order[: config.evaluation.calibration_images]]
        held_out = self.data.subset(torch.tensor(self.split.validation))
        calibration, normalisation = self.data.subset(chosen), self.split.normalisation
        return Evaluator(space, calibration, held_out, normalisation, config.evaluation.batch_size)

    def on_device(self, device: torch.device) -> "SimulatedFederation":
        """Return the same with the images on ``device``."""
        return SimulatedFederation(self.data.on(device), self.split)


def simulated(config: RunConfig, space: SearchSpace) -> SimulatedFederation:
    """Return the federation of a new run on this machine.

    Raises:
        UserError: the images are missing, or cannot be spread as asked for.
    """
    data = load_training_images(config, space)
    strength = capabilities(config.clients, space, config.seed) if config.clients.data == "matched" else None
    return SimulatedFederation(data, split_images(config, data, strength))


def simulated_again(folder: Path, config: RunConfig, space: SearchSpace, split: Split) -> SimulatedFederation:
    """Return the federation of the run in ``folder``.

    Raises:
        UserError: the images are missing, or are not those the run was started with.
    """
    data = load_training_images(config, space)
    if data.digest() != split.digest or data.classes != split.classes:
        raise UserError(f"the images in {config.data.root} are not those {folder} was started with; restore them")
    return SimulatedFederation(data, split)


def split_images(config: RunConfig, data: ImageSet, strength: Sequence[Capability] | None = None) -> Split:
    """Hold out validation images, spread the others over the clients; by their ``strength`` if it is given.

    Raises:
        UserError: a class has too few images, or a client would have less than a batch.
    """
    training, validation = validation_split(data, config.data.validation, torch_stream(config.seed, "validation"))
    if config.data.images is not None:
        order = torch.randperm(len(training), generator=torch_stream(config.seed, "images"))
        training = training[order[: config.data.images].sort().values]
    parts = partition(
        data.labels[training].tolist(),
        config.clients.count,
        config.partition,
        config.client.batch,
        numpy_stream(config.seed, "partition"),
    )
    spread = parts if strength is None else matched(parts, strength)
    clients = [training[part].tolist() for part in spread]
    return Split(data.digest(), data.classes, validation.tolist(), clients, normalisation_of(data.subset(training)))


def method_of(config: RunConfig, space: SearchSpace, cache: Cache, labels: IntArray | None = None) -> Method:
    """Return the method of a run; ``labels`` are its federation's, where they are known.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    clients = capabilities(config.clients, space, config.seed)
    return make_method(Ground(config, space, cache.entries, clients, labels))


def recipe_of(config: RunConfig, space: SearchSpace, normalisation: Normalisation) -> Recipe:
    """Return the local training of a run."""
    return Recipe(space, config.client, _augmentation(config.data), normalisation)


def load_training_images(config: RunConfig, space: SearchSpace) -> ImageSet:
    """Return the training images of a configuration, validation included.

    Raises:
        UserError: they are missing or cannot be read.
    """
    data = config.data
    return load_images(data.name, data.root, "train", space.resolutions[-1], download=data.download)


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
