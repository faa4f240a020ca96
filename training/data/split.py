"""Split of the training images: a draw of those that are used, and the validation images among them."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.images import DataError, ImageSet, Normalisation

#: Of every class, as many are used as validation and training need.
_LEAST_OF_A_CLASS = 2


def drawn(listing: Listing, count: int, generator: torch.Generator) -> Listing:
    """Return ``count`` of the training images, drawn at random; classes keep their shares, two images at least.

    The images that the data set itself holds out for validation stay as they are.

    Raises:
        DataError: there are fewer images, or ``count`` is so low that a class would be left out.
    """
    there, least = len(listing) - listing.held_out, _LEAST_OF_A_CLASS * len(listing.classes)
    if not least <= count <= there:
        raise DataError(
            f"data.images is {count:,}; allowed: {least:,} (two of each of {counted(len(listing.classes), 'class')}) "
            f"to the {counted(there, 'training image')} there; leave it out to use all"
        )
    shuffled = torch.randperm(there, generator=generator)
    labels = listing.labels[shuffled]
    turn = torch.empty(there, dtype=torch.float64)
    for label in range(len(listing.classes)):
        members = torch.nonzero(labels == label).flatten()
        rank = torch.arange(len(members), dtype=torch.float64)
        turn[members] = torch.where(rank < _LEAST_OF_A_CLASS, -1.0, rank / max(1, len(members)))
    chosen = shuffled[turn.argsort(stable=True)[:count]]
    return listing.subset(torch.cat([chosen.sort().values, torch.arange(there, len(listing))]))


def validation_split(data: ImageSet | Listing, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (training, validation) indices; every class gives the same share, at least one image.

    Raises:
        DataError: the share is not between 0 and 1, or a class has a single image.
    """
    if not 0 < share < 1:
        raise DataError(f"data.validation is {share}; it must be between 0 and 1, e.g. 0.1")
    training, validation = [], []
    for label, name in enumerate(data.classes):
        members = torch.nonzero(data.labels == label).flatten()
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {counted(len(members), 'training image')}; it needs at least 2, one to validate"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held_out = max(1, round(share * len(members)))
        if held_out == len(members):
            raise DataError(f"data.validation is {share}, which leaves class {name!r} no training image; lower it")
        validation.append(shuffled[:held_out])
        training.append(shuffled[held_out:])
    return torch.cat(training).sort().values, torch.cat(validation).sort().values


@dataclasses.dataclass(frozen=True)
class Split:
    """Split of a run's images: the validation images, every client's images, and the normalisation of all.

    Attributes:
        digest: digest of the images that are used; a run is resumed only with the same ones.
        classes: class names.
        validation: positions of the held-out images among those that are used.
        clients: positions of every client's images among them.
        normalisation: mean and standard deviation of the clients' pixels; of the validation images' in a private run
            that withholds clients' statistics.
        measured: digest of the images for validation and calibration; None in runs of older programs, whose images are
            drawn otherwise.
    """

    digest: str
    classes: tuple[str, ...]
    validation: Sequence[int]
    clients: Sequence[Sequence[int]]
    normalisation: Normalisation
    measured: str | None = None

    @property
    def sizes(self) -> Sequence[int]:
        """Number of training images of every client."""
        return [len(members) for members in self.clients]


@dataclasses.dataclass(frozen=True)
class Census:
    """Description of connected clients' images, as the clients gave it when the run started; the images stay with them.

    Attributes:
        classes: class names.
        normalisation: mean and standard deviation of all clients' pixels; constants in a private run that withholds
            clients' statistics.
        examples: training images of every client; 0 for one that was not there.
        validation: images that every client holds out.
    """

    classes: tuple[str, ...]
    normalisation: Normalisation
    examples: Sequence[int]
    validation: Sequence[int]

    @property
    def sizes(self) -> Sequence[int]:
        """Number of training images of every client."""
        return self.examples
