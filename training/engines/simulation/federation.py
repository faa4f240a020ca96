"""Simulated federation of a run: its images, their partition over the clients, its engine and its evaluator."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.clients.trainer import recipe_of
from fedpareto.training.config.partition import NATURAL
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.functions import COLON
from fedpareto.training.data.images import DataError, ImageSet
from fedpareto.training.data.run_images import (
    all_images,
    calibration_positions,
    measured_positions,
    preparation_of,
    refuse_shared_images,
    shares,
    split_of,
    storage_of,
    used_images,
    with_own_clients,
)
from fedpareto.training.data.split import Split
from fedpareto.training.data.stores.file_digests import PREFIX, files_digest
from fedpareto.training.engines.protocol import never
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.execution.profile import Profile


@dataclasses.dataclass(frozen=True)
class SimulatedFederation:
    """Federation whose clients all run in this process.

    Attributes:
        data: the images that are used, validation included.
        split: the split of the images: validation, and every client's.
        names: names of the clients that the data name.
    """

    data: ImageSet
    split: Split
    names: tuple[str, ...] = ()

    def labels(self) -> IntArray:
        """Return every client's number of images of each class, shape (clients, classes)."""
        return _label_counts(self.data.labels, self.split)

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> InProcessEngine:
        """Return the in-process engine, which never waits for clients."""
        del should_stop
        members = [torch.tensor(indices) for indices in self.split.clients]
        return InProcessEngine(self.data, members, recipe_of(config, space, self.split.normalisation), profile)

    def evaluator(self, config: RunConfig, space: SearchSpace) -> Evaluator:
        """Return an evaluator on the validation images, calibrated as ``calibration_positions`` says."""
        evaluator = _evaluator(config, space, self.split, self.data, torch.arange(len(self.data)))
        return evaluator if evaluator.accuracy_alone else dataclasses.replace(evaluator, labels=self.labels())

    def on_device(self, device: torch.device) -> "SimulatedFederation":
        """Return the federation with its images on ``device``."""
        return dataclasses.replace(self, data=self.data.on(device))


def new_simulation(config: RunConfig, space: SearchSpace, listener: ProgressListener = SILENT) -> SimulatedFederation:
    """Return the federation of a new run on this machine; ``listener`` follows the reading of its images.

    Raises:
        UserError: the images are missing, or the partition that is asked for is impossible.
    """
    listing = used_images(config, listener)
    if config.privacy.withheld and config.partition.scheme == NATURAL and not listing.held_out:
        raise UserError(
            "partition.scheme is natural with privacy.noise, and the data have no validation images of their own: "
            "those would be clients' images, whose statistics a private run withholds; give the data validation "
            "images, or give --privacy.statistics exact"
        )
    config = with_own_clients(config, listing)
    by_strength = config.clients.data != "independent"
    able = capabilities(config.clients, space, config.seed) if by_strength else ()
    # Refuses what cannot be spread, or would be tested on what it is trained on, before anything is decoded.
    given = shares(config, listing, [client.macs for client in able])
    refuse_shared_images(config, listing)
    for words in given.remarks:
        listener.remark(words)
    data = listing.read(preparation_of(config, space), listener, storage=storage_of(config))
    return SimulatedFederation(data, split_of(config, data, given), given.names)


def reopen_simulation(
    folder: Path, config: RunConfig, space: SearchSpace, split: Split, listener: ProgressListener = SILENT
) -> SimulatedFederation:
    """Return the federation of the run in ``folder``.

    Raises:
        UserError: the images are missing, or are not those the run was started with.
    """
    data = _read_again(config, space, _listed_again(folder, config, split), listener)
    _check_same(folder, config, data, split.digest)
    return SimulatedFederation(data, split)


@dataclasses.dataclass(frozen=True)
class StoredFederation:
    """Federation of a run that is not trained further; it reads only the images that are asked for.

    Attributes:
        folder: folder of the run.
        config: its configuration.
        space: its search space.
        split: the split of the images: validation, and every client's.
        listener: listener that follows the reading of images.
    """

    folder: Path
    config: RunConfig
    space: SearchSpace
    split: Split
    listener: ProgressListener = SILENT

    def labels(self) -> IntArray:
        """Return every client's number of images of each class, shape (clients, classes)."""
        return _label_counts(_listed_again(self.folder, self.config, self.split).labels, self.split)

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> InProcessEngine:
        """Return the in-process engine; all images are read for it."""
        return self._whole.engine(config, space, profile, should_stop)

    def evaluator(self, config: RunConfig, space: SearchSpace) -> Evaluator:
        """Return the evaluator of the run; the images for validation and calibration are read.

        Where ``config`` asks for exact statistics that the run itself withheld, all images are read.

        Raises:
            UserError: they are missing, or are not those the run was started with.
        """
        if self.split.measured is None or config.privacy.withheld != self.config.privacy.withheld:
            return self._whole.evaluator(config, space)
        positions = measured_positions(config, self.split)
        listing = _listed_again(self.folder, config, self.split).subset(positions)
        data = _read_again(config, space, listing, self.listener)
        _check_same(self.folder, config, data, self.split.measured)
        return _evaluator(config, space, self.split, data, positions)

    def on_device(self, device: torch.device) -> "StoredFederation":
        """Return the federation itself, as nothing is kept on a device."""
        del device
        return self

    @functools.cached_property
    def _whole(self) -> SimulatedFederation:
        return reopen_simulation(self.folder, self.config, self.space, self.split, self.listener)


def _label_counts(labels: Tensor, split: Split) -> IntArray:
    found, classes = labels.cpu().numpy(), len(split.classes)
    return np.stack([np.bincount(found[np.array(part)], minlength=classes) for part in split.clients])


def _listed_again(folder: Path, config: RunConfig, split: Split) -> Listing:
    """Return the listing of a run's images as they are on the disk now.

    Raises:
        UserError: they are missing, or fewer than they were.
    """
    # Older programs read all images and drew from them later.
    listed = all_images if split.measured is None else used_images
    try:
        listing = listed(config)
    except DataError as error:
        if COLON in config.data.name:
            raise
        raise DataError(
            f"{error}; if the images of {folder} have moved, add {option('data.root', 'FOLDER')}"
        ) from error
    last = max(index for members in (split.validation, *split.clients) for index in members)
    if listing.classes != split.classes or last >= len(listing):
        raise _others(folder, config)
    return listing


def _read_again(config: RunConfig, space: SearchSpace, listing: Listing, listener: ProgressListener) -> ImageSet:
    return listing.read(preparation_of(config, space), _progress_of(listener), storage=storage_of(config))


def _check_same(folder: Path, config: RunConfig, data: ImageSet, digest: str) -> None:
    # The digest is of what the run's store had at hand when it was started; any store tells both.
    found = files_digest(data, config.data.fit) if digest.startswith(PREFIX) else data.digest()
    if found != digest:
        raise _others(folder, config)


def _others(folder: Path, config: RunConfig) -> UserError:
    if COLON in config.data.name:
        return UserError(
            f"the function {config.data.name} returns other images than those {folder} was started with; let it return "
            "the same whenever it is called"
        )
    return UserError(
        f"the images in {config.data.root} are not those {folder} was started with; restore them or, if they are "
        f"elsewhere, add {option('data.root', 'FOLDER')}"
    )


def _progress_of(listener: ProgressListener) -> ProgressListener:
    """Return a listener for progress alone, as remarks about the images were made when the run was started."""
    return ProgressListener(report=listener.report)


def _evaluator(config: RunConfig, space: SearchSpace, split: Split, data: ImageSet, positions: Tensor) -> Evaluator:
    """Return an evaluator on the images of a split, of which ``data`` are those at the ascending ``positions``."""

    def at(chosen: Tensor) -> ImageSet:
        return data.subset(torch.searchsorted(positions, chosen))

    calibration, held_out = at(calibration_positions(config, split)), at(torch.tensor(split.validation))
    batch, alone = config.evaluation.batch_size, bool(config.privacy.noise)
    return Evaluator(space, calibration, held_out, split.normalisation, batch, accuracy_alone=alone)
