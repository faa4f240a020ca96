"""Reading: files and arrays decoded into one tensor of pixels, many at once."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache.progress import Listener
from supernet.words import counted
from training.data.images import DataError
from training.data.preparation import (
    ARRAY_SUFFIX,
    PictureError,
    Pixels,
    Preparation,
    prepare_array,
    read_sized,
)

#: Pictures that take long enough to be followed, and between two reports.
_MANY, _EVERY = 2000, 100

#: What happens to pictures that are no squares.
_FITS = {"crop": "cropped to their centre", "pad": "padded with white", "stretch": "stretched to squares"}


@dataclasses.dataclass(frozen=True)
class Files:
    """Pictures in files of their own."""

    paths: tuple[Path, ...]

    def subset(self, positions: Tensor) -> "Files":
        """Return those at ``positions``."""
        return Files(tuple(self.paths[position] for position in positions.tolist()))

    def read(self, preparation: Preparation, listener: Listener) -> Tensor:
        """Return their pixels, (N, channels, side, side) uint8; ``listener`` is told of those that are no squares.

        Raises:
            DataError: one cannot be decoded, or all together do not fit into memory.
        """
        self._check_channels(preparation)
        check_memory(len(self.paths), preparation)
        oblong: list[Path] = []

        def decode(position: int) -> Pixels:
            path = self.paths[position]
            try:
                pixels, (width, height) = read_sized(path, preparation)
            except PictureError as error:
                raise DataError(f"cannot decode {path}: {' '.join(str(error).split())}; repair or remove it") from error
            if width != height:
                oblong.append(path)
            return pixels

        with _warnings_told(listener):
            pixels = _filled(len(self.paths), preparation, decode, listener)
        if oblong:
            listener.remark(
                f"not square: {len(oblong):,} of {counted(len(self.paths), 'picture')} (e.g. {min(oblong)}); they are "
                f"{_FITS[preparation.fit]}; data.fit may be crop, pad or stretch"
            )
        return pixels

    def _check_channels(self, preparation: Preparation) -> None:
        pictures = [path for path in self.paths if path.suffix.lower() != ARRAY_SUFFIX]
        if preparation.channels not in (1, 3) and pictures:
            shape = f"(height, width, {preparation.channels})"
            raise DataError(
                f"the space has in_channels {preparation.channels}, and {pictures[0]} is a picture; give "
                f"{ARRAY_SUFFIX} arrays of {shape}, or a space with in_channels 1 (grey) or 3 (RGB)"
            )


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Pictures in one array.

    Attributes:
        name: of the data set.
        pixels: (N, height, width, channels).
    """

    name: str
    pixels: Pixels
    paths: None = None

    def subset(self, positions: Tensor) -> "Arrays":
        """Return those at ``positions``."""
        return Arrays(self.name, self.pixels[positions.numpy()])

    def read(self, preparation: Preparation, listener: Listener) -> Tensor:
        """Return their pixels, (N, channels, side, side) uint8.

        Raises:
            DataError: they have other channels, or all together do not fit into memory.
        """
        side, channels = preparation.side, preparation.channels
        check_memory(len(self.pixels), preparation)
        if self.pixels.shape[1:] == (side, side, channels):
            # Nothing is left to prepare, and there may be many.
            return torch.from_numpy(self.pixels).permute(0, 3, 1, 2).contiguous()

        def prepare(position: int) -> Pixels:
            try:
                return prepare_array(self.pixels[position], preparation)
            except PictureError as error:
                raise DataError(f"an image of {self.name} does not fit the space: {error}") from error

        return _filled(len(self.pixels), preparation, prepare, listener)


def check_memory(count: int, preparation: Preparation) -> None:
    """Refuse more images than this machine can hold.

    Raises:
        DataError: the message tells what they need and what there is.
    """
    side, channels = preparation.side, preparation.channels
    needed = count * channels * side * side
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # What is held out and what calibrates are copies beside the whole.
    if 2 * needed > available:
        raise DataError(
            f"{counted(count, 'image')} of {side}×{side} in {counted(channels, 'channel')} need "
            f"{2 * needed / 1e9:.1f} GB and this machine has "
            f"{available / 1e9:.1f} GB; use fewer (--data.images), or a space of a lower resolution"
        )


def _filled(count: int, preparation: Preparation, decode: Callable[[int], Pixels], listener: Listener) -> Tensor:
    """Return what ``decode`` gives for every position, (count, channels, side, side)."""
    side, channels = preparation.side, preparation.channels
    pixels = np.empty((count, channels, side, side), dtype=np.uint8)

    def fill(position: int) -> None:
        pixels[position] = decode(position).transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for done, _ in enumerate(pool.map(fill, range(count)), 1):
                if count >= _MANY and (done % _EVERY == 0 or done == count):
                    listener.report("reading images", done, count)
        finally:
            # Whoever interrupts waits for no file that is not begun.
            pool.shutdown(wait=False, cancel_futures=True)
    return torch.from_numpy(pixels)


@contextlib.contextmanager
def _warnings_told(listener: Listener) -> Iterator[None]:
    """Tell of what Pillow warns of in one line instead of many."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if caught:
        words = " ".join(str(caught[0].message).split())
        listener.remark(f"Pillow warns of {counted(len(caught), 'picture')}, first: {words}")
