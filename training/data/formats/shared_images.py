"""Images that are both to train with and to test, found by digests of their contents."""

import hashlib
from collections import defaultdict
from typing import Protocol, runtime_checkable

from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.images import DataError


@runtime_checkable
class Contents(Protocol):
    """Pictures whose contents can be compared before they are decoded."""

    def described(self, position: int) -> str:
        """Words for a picture, for a user to find it."""

    def content(self, position: int) -> bytes:
        """The picture as it is stored."""

    def size(self, position: int) -> int:
        """A number that equal pictures have alike, at little cost."""


def refuse_shared(training: Listing, test: Listing) -> None:
    """Refuse test images that are also to train with.

    Raises:
        DataError: there are some; it names the first.
    """
    first, second = training.pictures, test.pictures
    if not isinstance(first, Contents) or not isinstance(second, Contents):
        return
    last = len(training) - training.held_out
    by_size: dict[int, list[int]] = defaultdict(list)
    for position in range(last):
        by_size[first.size(position)].append(position)
    wanted: dict[int, list[int]] = defaultdict(list)
    for position in range(len(test)):
        size = second.size(position)
        if size in by_size:
            wanted[size].append(position)
    # Pictures of one size alone can be equal: of most files nothing is read.
    known = {_digest(first, position): position for size in wanted for position in by_size[size]}
    shared = [
        (known[found], place) for one in wanted.values() for place in one if (found := _digest(second, place)) in known
    ]
    if shared:
        one, same = min(shared, key=lambda pair: pair[1])
        raise DataError(
            f"{counted(len(shared), 'test image')} also to train with, first {second.described(same)}, which is "
            f"{first.described(one)}; remove them from one split, or add {option('data.allow-duplicates', 'true')}"
        )


def _digest(pictures: Contents, position: int) -> bytes:
    return hashlib.sha256(pictures.content(position)).digest()
