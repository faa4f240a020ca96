"""Images of a run: their preparation, the ones that are used, the validation split and the partition over clients."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import NATURAL
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.formats.shared_images import refuse_shared
from fedpareto.training.data.images import ImageSet, NoTestImagesError, normalisation_of
from fedpareto.training.data.partition.by_strength import matched, shares_of_images
from fedpareto.training.data.partition.natural import NaturalClients, natural_clients, with_count
from fedpareto.training.data.partition.partition import partition
from fedpareto.training.data.sources import SplitName, list_images, source
from fedpareto.training.data.split import Split as RunSplit
from fedpareto.training.data.split import drawn, validation_split
from fedpareto.training.data.stores.choice import Storage
from fedpareto.training.data.stores.file_digests import files_digest
from fedpareto.training.randomness import numpy_stream, torch_stream

#: Training images that normalisation is measured on where looking at all would decode them all.
MEASURED = 10_000


def preparation_of(config: RunConfig, space: SearchSpace) -> Preparation:
    """Return the preparation of a run's images."""
    return Preparation(space.resolutions[-1], space.in_channels, config.data.fit)


def storage_of(config: RunConfig) -> Storage:
    """Return the store of a run's images."""
    return Storage(config.data.store, config.data.decoders)


def with_validation(data: DataConfig, listener: ProgressListener = SILENT) -> DataConfig:
    """Return ``data`` with the share that is held out for validation; without one if the data have a validation split.

    Raises:
        UserError: a share is given although there is such a split.
    """
    own = source(data.name, data.reading).validation(Path(data.root))
    if own is None:
        return dataclasses.replace(data, validation=data.validation_share)
    if data.validation is not None:
        raise UserError(
            f"data.validation is {data.validation}, and {own} holds the validation images; leave data.validation out, "
            "or rename the folder"
        )
    others = "the others" if own == Path(data.root) else own.parent / "train"
    listener.remark(f"validation images are those of {own}; none of {others} is held out")
    return data


def used_images(config: RunConfig, listener: ProgressListener = SILENT) -> Listing:
    """Return the training images that a run uses, with those for validation, none of them decoded.

    Raises:
        UserError: they are missing, or there are not as many as asked for.
    """
    listing = all_images(config, listener)
    if config.data.images is None:
        return listing
    return drawn(listing, config.data.images, torch_stream(config.seed, "images"))


def all_images(config: RunConfig, listener: ProgressListener = SILENT) -> Listing:
    """Return all training images, those for validation at the end where the data have such a split.

    Raises:
        UserError: they are missing.
    """
    data = config.data
    own = source(data.name, data.reading).validation(Path(data.root))
    if own is not None and data.validation is not None:
        listener.remark(f"the images of {own} are not used: data.validation is {data.validation}")
    split: SplitName = "train" if data.validation is not None else "train+validation"
    return list_images(data.name, data.root, split, download=data.download, reading=data.reading, listener=listener)


def refuse_shared_images(config: RunConfig, listing: Listing) -> None:
    """Refuse a user's own files in which images to train with are also test images.

    Raises:
        DataError: some are; it names the first.
    """
    data = config.data
    if data.allow_duplicates or not source(data.name, data.reading).in_files:
        return
    try:
        test = list_images(data.name, data.root, "test", download=data.download, reading=data.reading)
    except NoTestImagesError:
        return
    refuse_shared(listing, test)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Positions of the validation images and of every client's, among the images that a run uses.

    Attributes:
        validation: of the validation images.
        clients: of every client's.
        names: of the clients, where the data name them.
        remarks: for the user, of clients that are left out.
    """

    validation: Sequence[int]
    clients: Sequence[Sequence[int]]
    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def shares(config: RunConfig, listing: Listing, max_macs: Sequence[int | None] = ()) -> Shares:
    """Hold out validation images, and spread the other images over the clients.

    Where clients.data says so they are spread by ``max_macs``, the MACs that every client can run (None: any number).
    Pooled images are those that the clients would have had: a scheme may leave some to nobody. Only labels are read,
    and nothing is decoded.

    Raises:
        UserError: a class has too few images, or a client would have less than a batch.
    """
    training, validation = _held_out(config, listing)
    natural: NaturalClients | None = None
    if config.partition.scheme == NATURAL:
        natural = natural_clients(listing, training, config.partition.min_images)
        natural.check_count(config)
        parts = natural.parts
    else:
        parts = _partitioned(config, listing, training, max_macs)
    spread = matched(parts, max_macs) if config.clients.data == "matched" else parts
    if config.clients.data == "pooled":
        spread = [sorted(index for part in parts for index in part)]
    positions = [training[part].tolist() for part in spread]
    if natural is None:
        return Shares(validation.tolist(), positions)
    return Shares(validation.tolist(), positions, natural.names, natural.remarks)


def with_own_clients(config: RunConfig, listing: Listing) -> RunConfig:
    """Return ``config`` with the number of clients that the data name, where they say whose each image is.

    Raises:
        UserError: the data name no clients, or the configuration has another number of them.
    """
    if config.partition.scheme != NATURAL:
        return config
    training, _ = _held_out(config, listing)
    return with_count(config, natural_clients(listing, training, config.partition.min_images))


def _held_out(config: RunConfig, listing: Listing) -> tuple[Tensor, Tensor]:
    """Positions of the images to train with, and of those for validation."""
    if listing.held_out:
        positions, last = torch.arange(len(listing)), len(listing) - listing.held_out
        return positions[:last], positions[last:]
    stream = torch_stream(config.seed, "validation")
    return validation_split(listing, config.data.validation_share, stream)


def _partitioned(
    config: RunConfig, listing: Listing, training: Tensor, max_macs: Sequence[int | None]
) -> list[list[int]]:
    return partition(
        listing.labels[training].tolist(),
        config.clients.count,
        config.partition,
        config.client.batch,
        numpy_stream(config.seed, "partition"),
        shares_of_images(max_macs, config.clients.gamma) if config.clients.data == "proportional" else None,
    )


def split_of(config: RunConfig, data: ImageSet, given: Shares) -> RunSplit:
    """Return the record of a run's decoded images and of their split, which the run keeps."""
    training = sorted(index for members in given.clients for index in members)
    measured = torch.tensor(given.validation if config.privacy.withheld else training)
    if not data.scanned and len(measured) > MEASURED:
        # Of millions of images a drawn part tells the mean as well, and is decoded in seconds.
        drawn_ones = torch.randperm(len(measured), generator=torch_stream(config.seed, "normalisation"))[:MEASURED]
        measured = measured[drawn_ones.sort().values]
    normalisation = normalisation_of(data.subset(measured))

    def digest(images: ImageSet) -> str:
        return images.digest() if images.scanned else files_digest(images, config.data.fit)

    split = RunSplit(digest(data), data.classes, given.validation, given.clients, normalisation)
    return dataclasses.replace(split, measured=digest(data.subset(measured_positions(config, split))))


def calibration_positions(config: RunConfig, split: RunSplit) -> Tensor:
    """Return the positions of a fixed draw of the clients' images, for the calibration of BatchNorm.

    Where statistics of those are withheld it is a draw of the validation images, which belong to no client.
    """
    members = [split.validation] if config.privacy.withheld else split.clients
    pool = torch.tensor([index for own in members for index in own])
    order = torch.randperm(len(pool), generator=torch_stream(config.seed, "calibration"))
    chosen: Tensor = pool[order[: config.evaluation.calibration_images]]
    return chosen


def measured_positions(config: RunConfig, split: RunSplit) -> Tensor:
    """Return the ascending positions of all images for validation or calibration."""
    return torch.tensor(sorted({*split.validation, *calibration_positions(config, split).tolist()}))
