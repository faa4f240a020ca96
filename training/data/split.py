"""Which training images are used, and which of them are held out before the clients' data are partitioned."""

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.images import DataError, ImageSet
from fedpareto.training.data.listing import Listing

#: Of every class, as many are used as validation and training need.
_LEAST_OF_A_CLASS = 2


def drawn(listing: Listing, count: int, generator: torch.Generator) -> Listing:
    """Return ``count`` of the training images, drawn at random; classes keep their shares, two images at least.

    What the data set itself holds out for validation stays as it is.

    Raises:
        DataError: there are fewer, or so few are asked for that a class would be left out.
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
