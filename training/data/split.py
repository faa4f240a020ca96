"""The validation split, held out before the clients' data are partitioned."""

import torch
from torch import Tensor

from training.data.images import DataError, ImageSet


def validation_split(data: ImageSet, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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
            raise DataError(f"class {name!r} has {len(members)} training images; it needs at least 2, one to validate")
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held_out = max(1, round(share * len(members)))
        if held_out == len(members):
            raise DataError(f"data.validation is {share}, which leaves class {name!r} no training image; lower it")
        validation.append(shuffled[:held_out])
        training.append(shuffled[held_out:])
    return torch.cat(training).sort().values, torch.cat(validation).sort().values
