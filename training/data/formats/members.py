"""Pictures that are bytes inside of larger files: rows of tables, members of archives."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import check_memory, decoded_pictures


@dataclasses.dataclass(frozen=True)
class Members:
    """Pictures inside of larger files; their bytes are fetched one by one.

    Attributes:
        fetch: the encoded picture, by its number in the whole set; it may be called by several threads.
        name: words for a picture, such as "shard-000.tar: 0005.jpg", by that number.
        numbers: of these pictures.
    """

    fetch: Callable[[int], bytes]
    name: Callable[[int], str]
    numbers: tuple[int, ...]
    paths: None = None

    def subset(self, positions: Tensor) -> "Members":
        """Return the pictures at ``positions``."""
        return dataclasses.replace(self, numbers=tuple(self.numbers[position] for position in positions.tolist()))

    def read(self, preparation: Preparation, listener: ProgressListener, *, keep: bool = True) -> Tensor:
        """Return the pixels, (N, channels, side, side) uint8; none are cached.

        Raises:
            DataError: one cannot be decoded, or they do not fit into memory together.
        """
        del keep
        check_memory(len(self.numbers), preparation)
        decoded = decoded_pictures(len(self.numbers), self.described, self.content, preparation, listener)
        if decoded.warnings or bool(decoded.oblong.any()):
            paths = [Path(self.described(position)) for position in range(len(self.numbers))]
            decoded.tell(paths, preparation, listener)
        return decoded.pixels

    def described(self, position: int) -> str:
        """Words for a picture, for a user to find it."""
        return self.name(self.numbers[position])

    def content(self, position: int) -> bytes:
        """The encoded picture."""
        return self.fetch(self.numbers[position])

    def size(self, position: int) -> int:
        """Any number that equal pictures have alike; bytes of members are not known without reading them."""
        del position
        return 0
