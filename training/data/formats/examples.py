"""Examples: all images of a data set as a format reads them, with their labels, splits and clients."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.array_files import NOBODY
from fedpareto.training.data.files.listing import Listing, Pictures
from fedpareto.training.data.formats.names import Name, numbered
from fedpareto.training.data.images import DataError, NoTestImagesError

#: What splits may be called.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class Examples:
    """All images of a data set, none of them decoded.

    Attributes:
        where: the file or folder they are in.
        pictures: the images.
        labels: (N,), indices into ``classes``.
        classes: class names.
        splits: train, validation or test, (N,).
        clients: (N,), the client of each image, an index into ``client_names``; None where that is not known.
        client_names: names of the clients that have images to train with.
        remarks: for the user, of what was skipped.
    """

    where: str
    pictures: Pictures
    labels: IntArray
    classes: tuple[str, ...]
    splits: "np.ndarray[tuple[int], np.dtype[np.str_]]"
    clients: IntArray | None
    client_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def has_validation(self) -> bool:
        """True if images are marked as those for validation."""
        return bool((self.splits == "validation").any())

    def listing(self, split: str) -> Listing:
        """List the images of a split; with ``train+validation`` those for validation come last.

        Raises:
            NoTestImagesError: there are no test images, and those are asked for.
        """
        chosen, held_out = np.flatnonzero(self.splits == split.removesuffix("+validation")), 0
        if split == "test" and not len(chosen):
            raise NoTestImagesError(f"{self.where} holds no test images, and test images were asked for")
        if split == "train+validation":
            own = np.flatnonzero(self.splits == "validation")
            chosen, held_out = np.concatenate([chosen, own]), len(own)
        positions = torch.from_numpy(chosen)
        clients = None
        if self.clients is not None and split != "test":
            clients = torch.from_numpy(self.clients[chosen])
        labels, pictures = torch.from_numpy(self.labels[chosen]), self.pictures.subset(positions)
        names = self.client_names if clients is not None else ()
        return Listing(labels, self.classes, pictures, held_out, clients, names)


def examples_of(
    where: str,
    pictures: Pictures,
    place: Callable[[int], str],
    labels: Sequence[Name | None],
    splits: Sequence[str] | None = None,
    clients: Sequence[Name | None] | None = None,
    classes: Sequence[str] | None = None,
    remarks: Sequence[str] = (),
) -> Examples:
    """Examples of what a format has read, checked.

    Args:
        where: the file or folder.
        pictures: the images.
        place: words for the place of an image, by its position.
        labels: name of each image's class, or its number where ``classes`` are given.
        splits: split of each image, by any of its names; all are to train with when left out.
        clients: name of each image's client.
        classes: names of the classes in the order of their numbers.
        remarks: for the user.

    Raises:
        DataError: a label or a client is missing or unknown, a split has no such name, no image is to train with.
    """
    parts = np.array([_split(name, position, place) for position, name in enumerate(splits or ["train"] * len(labels))])
    training = np.flatnonzero(parts == "train")
    if not len(training):
        raise DataError(f"{where} holds no images to train with")
    for position, label in enumerate(labels):
        if label is None or label == "":
            raise DataError(f"{place(position)} has no label")
    if classes is None:
        names, numbers = _classes(where, place, [label for label in labels if label is not None], parts)
    else:
        names, numbers = tuple(classes), _checked_labels(labels, len(classes), place)
    owners: IntArray | None = None
    client_names: tuple[str, ...] = ()
    if clients is not None:
        owners, client_names = _owners(where, place, clients, parts)
    return Examples(where, pictures, numbers, names, parts, owners, client_names, tuple(remarks))


def _split(name: str, position: int, place: Callable[[int], str]) -> str:
    found = SPLITS.get(name.strip().lower())
    if found is None:
        raise DataError(f"{place(position)} is of split {name!r}; it must be train, validation or test")
    return found


def _classes(
    where: str, place: Callable[[int], str], labels: Sequence[Name], splits: "np.ndarray[tuple[int], np.dtype[np.str_]]"
) -> tuple[tuple[str, ...], IntArray]:
    """Names of the classes of the images to train with, and the number of each image's."""
    names, numbers = numbered(labels, "classes", where)
    known = np.unique(numbers[splits == "train"])
    others = np.flatnonzero(~np.isin(numbers, known))
    if len(others):
        first = int(others[0])
        raise DataError(f"{place(first)} is of class {labels[first]!r}, of which no image is to train with")
    return names, numbers


def _checked_labels(labels: Sequence[Name | None], classes: int, place: Callable[[int], str]) -> IntArray:
    for position, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise DataError(
                f"{place(position)} has the label {label!r}; there are {counted(classes, 'class')}, numbered from 0"
            )
    return np.array(labels, dtype=np.int64)


def _owners(
    where: str,
    place: Callable[[int], str],
    clients: Sequence[Name | None],
    splits: "np.ndarray[tuple[int], np.dtype[np.str_]]",
) -> tuple[IntArray, tuple[str, ...]]:
    """Client of each image to train with, nobody of all others, and the clients' names."""
    training, own = np.flatnonzero(splits == "train"), []
    for position in training.tolist():
        client = clients[position]
        if client is None or client == "":
            raise DataError(f"{place(position)} has no client")
        own.append(client)
    names, numbers = numbered(own, "clients", where)
    owners = np.full(len(clients), NOBODY, dtype=np.int64)
    owners[training] = numbers
    return owners, names
