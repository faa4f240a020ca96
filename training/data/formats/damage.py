"""Damaged pictures: skipped by choice, before anything is split."""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Protocol, runtime_checkable

import torch

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.preparation import PictureError, check_readable
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.images import DataError


@runtime_checkable
class Encoded(Protocol):
    """Pictures that may be damaged."""

    def described(self, position: int) -> str:
        """Words for a picture, for a user to find it."""

    def content(self, position: int) -> bytes:
        """The picture as it is stored."""


def undamaged(listing: Listing, listener: ProgressListener) -> Listing:
    """Listing without the pictures that cannot be decoded; all of them are tried. The listener is told of the number.

    Raises:
        DataError: none can be decoded.
    """
    pictures = listing.pictures
    if isinstance(pictures, Arrays) or not isinstance(pictures, Encoded):
        return listing

    def reason(position: int) -> str | None:
        try:
            check_readable(pictures.content(position))
        except (PictureError, DataError) as error:
            return " ".join(str(error).split())
        return None

    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        reasons = list(pool.map(reason, range(len(listing))))
    bad = [position for position, words in enumerate(reasons) if words is not None]
    if not bad:
        return listing
    told = f"{pictures.described(bad[0])} ({reasons[bad[0]]})"
    if len(bad) == len(listing):
        raise DataError(f"none of {counted(len(bad), 'picture')} can be decoded, first {told}")
    listener.remark(f"skipped: {counted(len(bad), 'damaged picture')} of {len(listing):,}, first {told}")
    return listing.subset(torch.tensor([place for place, words in enumerate(reasons) if words is None]))
