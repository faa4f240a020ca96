"""Reading of images: files and arrays are decoded into one tensor of pixels, several at once."""

import contextlib
import dataclasses
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.kept_pixels import kept_or_decoded
from fedpareto.training.data.files.preparation import (
    ARRAY_SUFFIX,
    ARRAY_SUFFIXES,
    BAND_SUFFIXES,
    COLOURS,
    PictureError,
    Pixels,
    Preparation,
    prepare_array,
    read_sized,
)
from fedpareto.training.data.images import DataError

#: Pictures that take long enough to be followed, and between two reports.
_MANY, _EVERY = 2000, 100


@dataclasses.dataclass(frozen=True)
class Files:
    """Pictures in files of their own.

    Attributes:
        paths: the files.
        whole: the larger set of files that these were chosen from; None if these are all.
    """

    paths: tuple[Path, ...]
    whole: "Files | None" = dataclasses.field(default=None, compare=False, repr=False)

    def subset(self, positions: Tensor) -> "Files":
        """Return the pictures at ``positions``."""
        return Files(tuple(self.paths[position] for position in positions.tolist()), self)

    def read(self, preparation: Preparation, listener: ProgressListener, *, keep: bool = True) -> Tensor:
        """Return the pixels, (N, channels, side, side) uint8; ``listener`` is told of pictures that are no squares.

        Raises:
            DataError: one cannot be decoded, or they do not fit into memory together.
            UserError: see ``kept_or_decoded``.
        """
        self.check_channels(preparation)
        check_memory(len(self.paths), preparation)

        def decode(paths: Sequence[Path]) -> Decoded:
            return decoded_files(paths, preparation, listener)

        decoded = kept_or_decoded(self.lists(), preparation, decode, listener, keep=keep)
        decoded.tell(self.paths, preparation, listener)
        return decoded.pixels

    def described(self, position: int) -> str:
        """Words for a picture, for a user to find it."""
        return str(self.paths[position])

    def content(self, position: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return self.paths[position].read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.paths[position]}: {error.strerror or error}") from error

    def size(self, position: int) -> int:
        """Return the size of a file, which equal pictures have alike; -1 where that is not known."""
        try:
            return self.paths[position].stat().st_size
        except OSError:
            return -1

    def lists(self) -> list[tuple[Path, ...]]:
        """Return the files, then the larger set they were chosen from, and so on."""
        return [self.paths] if self.whole is None else [self.paths, *self.whole.lists()]

    def check_channels(self, preparation: Preparation) -> None:
        """Refuse pictures where the network takes channels that only arrays have.

        Raises:
            DataError: there is a picture; the message names it.
        """
        if preparation.channels in COLOURS:
            return
        pictures = [path for path in self.paths if path.suffix.lower() not in (*ARRAY_SUFFIXES, *BAND_SUFFIXES)]
        if pictures:
            shape = f"(height, width, {preparation.channels})"
            raise DataError(
                f"the space has in_channels {preparation.channels}, and {pictures[0]} is a picture; give "
                f"{ARRAY_SUFFIX} arrays of {shape}, or a space with in_channels 1 (grey) or 3 (RGB)"
            )


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Pictures in one array.

    Attributes:
        name: name of the data set.
        pixels: (N, height, width, channels).
    """

    name: str
    pixels: Pixels
    paths: None = None

    def subset(self, positions: Tensor) -> "Arrays":
        """Return the pictures at ``positions``."""
        return Arrays(self.name, self.pixels[positions.numpy()])

    def described(self, position: int) -> str:
        """Words for a picture, for a user to find it."""
        return f"image {position} of {self.name}"

    def content(self, position: int) -> bytes:
        """Return the values of a picture."""
        return bytes(self.pixels[position].tobytes())

    def size(self, position: int) -> int:
        """Return any number that equal pictures have alike."""
        return len(self.pixels[position])

    def read(self, preparation: Preparation, listener: ProgressListener, *, keep: bool = True) -> Tensor:
        """Return the pixels, (N, channels, side, side) uint8; none are cached, as the array has a file of its own.

        Raises:
            DataError: they have other channels, or do not fit into memory together.
        """
        del keep
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


def decoded_files(paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> Decoded:
    """Decode the pictures of files, on all cores; ``listener`` follows the progress.

    Raises:
        DataError: one cannot be decoded; the message names the first that cannot.
    """
    return decoded_pictures(
        len(paths), lambda position: str(paths[position]), lambda position: paths[position], preparation, listener
    )


def decoded_pictures(
    count: int,
    name: Callable[[int], str],
    source: Callable[[int], Path | bytes],
    preparation: Preparation,
    listener: ProgressListener,
) -> Decoded:
    """Decode pictures of which ``source`` gives the file or the content, on all cores.

    Raises:
        DataError: one cannot be decoded; the message calls the first that cannot by its ``name``.
    """
    oblong = np.zeros(count, dtype=np.bool_)

    def decode(position: int) -> Pixels:
        noted.position = position
        try:
            pixels, (width, height) = read_sized(source(position), preparation)
        except PictureError as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot decode {name(position)}: {reason}; repair or remove it") from error
        oblong[position] = width != height
        return pixels

    with _warnings_noted() as noted:
        pixels = _filled(count, preparation, decode, listener)
    return Decoded(pixels, torch.from_numpy(oblong), noted.warnings)


def check_memory(count: int, preparation: Preparation) -> None:
    """Refuse more images than fit into this machine's memory.

    Raises:
        DataError: they do not fit; the message says how much memory they need and how much there is.
    """
    side, channels = preparation.side, preparation.channels
    needed = count * channels * side * side
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # What is held out and what calibrates are copies beside the whole.
    if 2 * needed > available:
        raise DataError(
            f"{counted(count, 'image')} of {side}×{side} in {counted(channels, 'channel')} need "
            f"{2 * needed / 1e9:.1f} GB and this machine has "
            f"{available / 1e9:.1f} GB; use fewer ({option('data.images')}), or a space of a lower resolution"
        )


def _filled(
    count: int, preparation: Preparation, decode: Callable[[int], Pixels], listener: ProgressListener
) -> Tensor:
    """Return the results of ``decode`` for all positions, (count, channels, side, side)."""
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


class _Noted(threading.local):
    """Pillow's warnings by picture; each thread has the position of the picture that it decodes."""

    position: int | None = None

    def __init__(self, warnings: dict[int, str]) -> None:
        self.warnings = warnings


@contextlib.contextmanager
def _warnings_noted() -> Iterator[_Noted]:
    """Collect Pillow's warnings instead of printing them: the first of each picture."""
    noted = _Noted({})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        others = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if noted.position is None:
                others(message, category, filename, lineno, file, line)
            else:
                noted.warnings.setdefault(noted.position, " ".join(str(message).split()))

        warnings.showwarning = note
        yield noted
