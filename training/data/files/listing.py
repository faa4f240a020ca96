"""Listings: the images of a split with their labels, before any image is decoded."""

import dataclasses
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.images import ImageSet
from fedpareto.training.data.stores.choice import Storage, read_files
from fedpareto.training.data.stores.stored import StoredPixels, parts_of

#: Largest difference between the values of a channel in a picture that shows nearly nothing.
_NEARLY = 4


class Pictures(Protocol):
    """Pictures that are not decoded yet."""

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """Files that hold the pictures, one each; None where the pictures have no files of their own."""

    def subset(self, positions: Tensor) -> "Pictures":
        """Return the pictures at ``positions``."""

    def read(self, preparation: Preparation, listener: ProgressListener, *, keep: bool = True) -> Tensor:
        """Return the pixels, (N, channels, side, side) uint8; with ``keep`` the next command finds them decoded."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """Images of a split with their labels, none of them decoded.

    Attributes:
        labels: (N,) int64.
        classes: class names; a label is an index into them.
        pictures: the images, in the order of the labels.
        held_out: number of images at the end that the data set itself holds out for validation.
        clients: (N,) int64, the client of each image if the data set itself names them, else None.
        client_names: names of the clients; their numbers where they have no names.
    """

    labels: Tensor
    classes: tuple[str, ...]
    pictures: Pictures
    held_out: int = 0
    clients: Tensor | None = None
    client_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: Tensor) -> "Listing":
        """Return the images at ascending ``positions``."""
        held_out = int((positions >= len(self) - self.held_out).sum())
        clients = None if self.clients is None else self.clients[positions]
        pictures = self.pictures.subset(positions)
        return Listing(self.labels[positions], self.classes, pictures, held_out, clients, self.client_names)

    def read(
        self,
        preparation: Preparation,
        listener: ProgressListener = SILENT,
        *,
        keep: bool = True,
        storage: Storage | None = None,
    ) -> ImageSet:
        """Return the images decoded; ``listener`` follows the progress, and is told of images that look wrong.

        With ``keep`` they are kept decoded for the next command that reads them. With ``storage`` images of files may
        be elsewhere than in memory.

        Raises:
            DataError: one cannot be decoded or prepared; the message names it.
        """
        images: Tensor | StoredPixels
        if storage is not None and isinstance(self.pictures, Files):
            images = read_files(self.pictures, preparation, listener, storage)
        else:
            images = self.pictures.read(preparation, listener, keep=keep)
        data = ImageSet(images, self.labels, self.classes, self.pictures.paths)
        remark = constant_words(data) if data.scanned else None
        if remark is not None:
            listener.remark(remark)
        return data


def constant_words(data: ImageSet) -> str | None:
    """Return one line about pictures of nearly one colour, if a whole class or half of all are such; else None."""
    spread = torch.cat([part.amax(dim=(2, 3)) - part.amin(dim=(2, 3)) for part in parts_of(data.images)])
    flat = (spread <= _NEARLY).all(dim=1)
    count, bare = int(flat.sum()), []
    for label, name in enumerate(data.classes):
        members = flat[data.labels == label]
        if len(members) and bool(members.all()):
            bare.append(name)
    if not bare and 2 * count < len(data):
        return None
    which = (
        f"all of {', '.join(map(repr, bare[:3]))}{' and others' if len(bare) > 3 else ''} among them" if bare else ""
    )
    return f"warning: nearly of one colour: {count:,} of {counted(len(data), 'picture')}{', ' if which else ''}{which}"
