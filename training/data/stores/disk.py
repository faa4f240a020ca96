"""Decoded pictures on the disk: they are decoded once into a cache file, of which only what is asked for is read.

The file is the one of ``files/pixel_file.py``. It is read and not mapped: the pages of a map would count as memory
of the process.
"""

import math
import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.disk_room import make_room, mark_used
from fedpareto.supernet.common.storage.files import replacing
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.kept_pixels import SUFFIX, Decoder, Place, place_of
from fedpareto.training.data.files.pixel_file import (
    Layout,
    check_content,
    digests_of,
    file_size,
    filled_up,
    header_line,
    read_layout,
)
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.stamps import settled, stamps
from fedpareto.training.data.images import DataError
from fedpareto.training.data.stores.stored import StoredPixels, stored

#: Bytes of pictures that are in memory at once while a file is written.
_PART = 1 << 25

#: Bytes of a header's beginning, and for each picture: most have no warning.
_HEADER, _EACH = 1 << 16, 64

#: Characters that are left of each warning where there are too many.
_SHORT = 20


class PixelRows:
    """Source of the pixels of an open cache file; the content stays readable though its name may go.

    Args:
        file: the file.
        layout: its layout.
    """

    #: Reading is cheap beside decoding.
    scanned = True

    def __init__(self, file: IO[bytes], layout: Layout) -> None:
        self._file, self.layout = file, layout
        weakref.finalize(self, file.close)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, channels, side, side)."""
        return self.layout.shape

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return the pixels of the images at ``positions``, (n, channels, side, side) uint8.

        Raises:
            UserError: the disk does not give them.
        """
        shape = self.shape[1:]
        pixels = np.empty((len(positions), *shape), dtype=np.uint8)
        each, begin = math.prod(shape), self.layout.offset + self.shape[0]
        for row, position in zip(pixels, positions, strict=True):
            try:
                got = os.preadv(self._file.fileno(), [row.data], begin + position * each)
            except OSError as error:
                raise UserError(f"cannot read {self._file.name}: {error.strerror}; check the disk") from error
            if got != each:
                raise UserError(f"{self._file.name} was cut short while it was used; start again")
        return torch.from_numpy(pixels)

    def oblong(self) -> Tensor:
        """Return True for every picture that was no square, (N,) bool."""
        return torch.frombuffer(bytearray(self.bytes(0, self.shape[0])), dtype=torch.uint8) != 0

    def bytes(self, start: int, size: int) -> bytes:
        """Return bytes of the content, which begins with one for each picture."""
        return os.pread(self._file.fileno(), size, self.layout.offset + start)


def on_disk(
    lists: Sequence[Sequence[Path]], preparation: Preparation, decode: Decoder, listener: ProgressListener
) -> StoredPixels:
    """Return the pictures of the first of ``lists`` on the disk, where they are decoded to unless they are there.

    Each further list contains the list before it; where a larger one is there, its file is used.

    Raises:
        DataError: a picture cannot be decoded, or files change while they are.
        UserError: there is no room, the disk is full, or the file is damaged.
    """
    wanted = lists[0]
    for paths in lists:
        place = place_of(paths, stamps(paths), preparation)
        if not place.path.is_file():
            continue
        rows = _opened(place)
        mark_used(place.path)
        numbers = {path: position for position, path in enumerate(paths)}
        found = StoredPixels(rows, torch.tensor([numbers[path] for path in wanted]))
        _tell(rows, found.positions, wanted, preparation, listener)
        return found
    rows = _written(wanted, preparation, decode, listener)
    found = stored(rows)
    _tell(rows, found.positions, wanted, preparation, listener)
    return found


def _written(paths: Sequence[Path], preparation: Preparation, decode: Decoder, listener: ProgressListener) -> PixelRows:
    begun, stamped = time.time_ns(), stamps(paths)
    place = place_of(paths, stamped, preparation)
    count, side, channels = len(paths), preparation.side, preparation.channels
    make_room(place.path.parent, SUFFIX, file_size(count, channels, side))
    shape, room = (count, channels, side, side), -(-(_HEADER + _EACH * count) // _HEADER) * _HEADER
    with replacing(place.path) as temporary, temporary.open("w+b", buffering=0) as file:
        # A disk that is too small is found full now, and not after an hour.
        os.posix_fallocate(file.fileno(), 0, room + count + math.prod(shape))
        warnings = _decoded_into(file.fileno(), room, paths, shape, decode, listener)
        changed = next((path for path, was, now in zip(paths, stamped, stamps(paths), strict=True) if was != now), None)
        if changed is not None:
            raise DataError(f"{changed} changed while it was read; start again when nothing writes to it any more")
        content = digests_of(shape, lambda start, size: os.pread(file.fileno(), size, room + start))
        line = header_line(place.key, shape, warnings, content)
        if len(line) >= room:
            cut = {position: text[:_SHORT] for position, text in warnings.items()}
            line = header_line(place.key, shape, cut, content)
        os.pwrite(file.fileno(), filled_up(line, room), 0)
    rows = _opened(place, checked=True)
    if not settled(stamped, begun):
        # Files may change without another stamp yet: the next command is not to take these for theirs.
        place.path.unlink()
    return rows


def _decoded_into(
    handle: int, room: int, paths: Sequence[Path], shape: Sequence[int], decode: Decoder, listener: ProgressListener
) -> dict[int, str]:
    """Decode pictures into an open file, some at a time; return Pillow's warnings by the picture's position."""
    count, each = shape[0], math.prod(shape[1:])
    size, warnings = max(1, _PART // each), dict[int, str]()
    for start in range(0, count, size):
        part: Decoded = decode(paths[start : start + size])
        os.pwrite(handle, part.oblong.numpy().view(np.uint8).data, room + start)
        os.pwrite(handle, part.pixels.contiguous().numpy().reshape(-1).data, room + count + start * each)
        warnings |= {start + position: text for position, text in part.warnings.items()}
        listener.report("decoding images to the disk", min(start + size, count), count)
    return warnings


def _opened(place: Place, *, checked: bool = False) -> PixelRows:
    """Open a cache file; its content is verified unless it was just written."""
    file = place.path.open("rb")
    try:
        rows = PixelRows(file, read_layout(file, place.path, place.key))
        if not checked:
            check_content(place.path, rows.layout, rows.bytes)
    except UserError as error:
        file.close()
        raise UserError(f"{error}; remove it, and the images are decoded again") from error
    return rows


def _tell(
    rows: PixelRows, positions: Tensor, paths: Sequence[Path], preparation: Preparation, listener: ProgressListener
) -> None:
    nothing = torch.empty((rows.shape[0], 0, 0, 0), dtype=torch.uint8)
    Decoded(nothing, rows.oblong(), rows.layout.warnings).subset(positions).tell(paths, preparation, listener)
