"""File format of decoded pictures: a sealed header, then pixels that are mapped into memory as they are.

::

    one line of JSON, filled up with spaces to a multiple of 4096 bytes
    N bytes: 1 for each picture that was no square, else 0
    N × channels × side × side bytes: pixels

The mapping is private: a process that writes into the tensor changes its own copy, and processes that only read share
the system's pages. Every file is verified once when it is opened, because wrong pixels would go unnoticed. At about
1 GB a second and core that is little beside decoding. Bytes that change on the disk *after* that are not noticed.
"""

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import DIGEST, parse_json, sealed, unsealed
from fedpareto.supernet.common.storage.files import replacing
from fedpareto.training.data.files.decoded import Decoded

#: Of the layout of the file; another layout is another version.
VERSION = 1

#: Pages of memory begin at multiples of this.
_PAGE = 4096

#: A header with a warning for every one of a million pictures is shorter.
_LONGEST_HEADER = 1 << 28

#: Bytes that are hashed in one go: enough for the threads' overhead to vanish, few enough to occupy all cores.
_PART = 1 << 24

Bytes = NDArray[np.uint8]

#: Bytes of a content from a start on, and so many.
Reader = Callable[[int, int], bytes | memoryview]


class DamagedPixelsError(UserError):
    """Error of a file of decoded pictures that differs from the one that was written."""


def file_size(count: int, channels: int, side: int) -> int:
    """Return the approximate size in bytes of a file with ``count`` pictures."""
    return _PAGE + count * (1 + channels * side * side)


def write_pixels(path: Path, key: str, decoded: Decoded) -> None:
    """Write decoded pictures, whole or not at all; ``key`` identifies their files and how they were decoded.

    Raises:
        UserError: the file cannot be written, or the disk is full.
    """
    parts = [decoded.oblong.numpy().view(np.uint8), decoded.pixels.contiguous().numpy().reshape(-1)]
    content = [_digest(len(part), functools.partial(_bytes_of, part)) for part in parts]
    line = header_line(key, decoded.pixels.shape, decoded.warnings, content)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(filled_up(line, -(len(line) + 1) // _PAGE * -_PAGE))
        for part in parts:
            file.write(part.data)


def header_line(key: str, shape: Sequence[int], warnings: Mapping[int, str], content: Sequence[str]) -> bytes:
    """Header of a file: ``content`` are the digests of what says which pictures were no squares, and of the pixels."""
    positions = sorted(warnings)
    header = {
        "version": VERSION,
        "key": key,
        "shape": list(shape),
        "warned": positions,
        "warnings": [warnings[position] for position in positions],
        "content": list(content),
    }
    return json.dumps(sealed(header)).encode()


def filled_up(line: bytes, size: int) -> bytes:
    """A header filled up with spaces to ``size`` bytes."""
    return line.ljust(size - 1) + b"\n"


class Layout(NamedTuple):
    """Content of an open file of decoded pictures, by its header.

    Attributes:
        shape: (N, channels, side, side).
        offset: position of the first byte after the header.
        warnings: Pillow's warnings, by the picture's position.
        content: digests of what says which pictures were no squares, and of the pixels.
    """

    shape: tuple[int, int, int, int]
    offset: int
    warnings: Mapping[int, str]
    content: tuple[str, ...]


def map_pixels(path: Path, key: str) -> Decoded:
    """Return the pictures of a file, mapped into memory.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        DamagedPixelsError: it is cut short, altered, of another version, or was written under another key.
    """
    # All is asked of one open file: its name may get another one meanwhile, or none.
    with path.open("rb") as file:
        layout = read_layout(file, path, key)
        count = layout.shape[0]
        content: Bytes = np.memmap(file, np.uint8, "c", layout.offset, (count + math.prod(layout.shape),))
    check_content(path, layout, functools.partial(_bytes_of, content))
    oblong, pixels = content[:count], content[count:]
    return Decoded(torch.from_numpy(pixels).view(layout.shape), torch.from_numpy(oblong != 0), layout.warnings)


def read_layout(file: IO[bytes], path: Path, key: str) -> Layout:
    """Read the header of an open file, and check that the file has the key and the length that it says.

    Raises:
        DamagedPixelsError: it is cut short, altered, of another version, or was written under another key.
    """
    header = _header(file, path)
    if header.choice("version", [VERSION]) and header.text("key") != key:
        raise DamagedPixelsError(f"{path} is damaged (it was written under another name)")
    count, channels, side = _shape(header)
    shape = (count, channels, side, side)
    if os.fstat(file.fileno()).st_size != file.tell() + count + math.prod(shape):
        raise DamagedPixelsError(f"{path} is damaged (it has another length than its header says)")
    warnings = dict(zip(header.wholes("warned"), header.texts("warnings"), strict=True))
    return Layout(shape, file.tell(), warnings, header.texts("content"))


def check_content(path: Path, layout: Layout, read: Reader) -> None:
    """Refuse content that was altered; ``read`` returns bytes of it by (start, size).

    Raises:
        DamagedPixelsError: a digest does not fit.
    """
    if layout.content != digests_of(layout.shape, read):
        raise DamagedPixelsError(f"{path} is damaged (its digest does not fit)")


def digests_of(shape: Sequence[int], read: Reader) -> tuple[str, str]:
    """Digests of what says which pictures were no squares, and of the pixels, which follow it."""
    count = shape[0]
    return _digest(count, read), _digest(math.prod(shape), lambda start, size: read(count + start, size))


def _header(file: IO[bytes], path: Path) -> Fields:
    line = file.readline(_LONGEST_HEADER)
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise DamagedPixelsError(f"{path} is damaged (its header is no text)") from error
    value: Any = parse_json(text, str(path), DamagedPixelsError)
    fields_of(value, str(path), DamagedPixelsError).text(DIGEST)
    return Fields(unsealed(value, str(path), DamagedPixelsError), str(path), "", DamagedPixelsError)


def _shape(header: Fields) -> tuple[int, int, int]:
    shape = header.wholes("shape", low=1)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise header.wrong("shape", "of four numbers, the last two of them alike")
    return shape[0], shape[1], shape[2]


def _bytes_of(content: Bytes, start: int, size: int) -> memoryview:
    return content[start : start + size].data


def _digest(length: int, read: Reader) -> str:
    """Return a digest of many bytes, computed on all cores: the digest of the digests of their parts."""

    def part(start: int) -> bytes:
        return hashlib.sha256(read(start, min(_PART, length - start))).digest()

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return hashlib.sha256(b"".join(pool.map(part, range(0, length, _PART)))).hexdigest()
