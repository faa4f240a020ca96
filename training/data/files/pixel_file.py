"""File format of decoded pictures: a sealed header, then pixels that are mapped into memory as they are.

::

    one line of JSON, filled up with spaces to a multiple of 4096 bytes
    N bytes: 1 for each picture that was no square, else 0
    N × channels × side × side bytes: pixels

The mapping is private: a process that writes into the tensor changes its own copy, and processes that only read share
the system's pages. Every file is verified once when it is opened, because wrong pixels would go unnoticed. At about
1 GB a second and core that is little beside decoding. Bytes that change on the disk *after* that are not noticed.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

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
    positions = sorted(decoded.warnings)
    header = {
        "version": VERSION,
        "key": key,
        "shape": list(decoded.pixels.shape),
        "warned": positions,
        "warnings": [decoded.warnings[position] for position in positions],
        "content": [_digest(part) for part in parts],
    }
    line = json.dumps(sealed(header)).encode()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(line.ljust(-(len(line) + 1) // _PAGE * -_PAGE - 1) + b"\n")
        for part in parts:
            file.write(part.data)


def map_pixels(path: Path, key: str) -> Decoded:
    """Return the pictures of a file, mapped into memory.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        DamagedPixelsError: it is cut short, altered, of another version, or was written under another key.
    """
    # All is asked of one open file: its name may get another one meanwhile, or none.
    with path.open("rb") as file:
        header = _header(file, path)
        if header.choice("version", [VERSION]) and header.text("key") != key:
            raise DamagedPixelsError(f"{path} is damaged (it was written under another name)")
        count, channels, side = _shape(header)
        sizes = (count, count * channels * side * side)
        if os.fstat(file.fileno()).st_size != file.tell() + sum(sizes):
            raise DamagedPixelsError(f"{path} is damaged (it has another length than its header says)")
        content: Bytes = np.memmap(file, np.uint8, "c", file.tell(), (sum(sizes),))
    oblong, pixels = content[:count], content[count:]
    if header.texts("content") != (_digest(oblong), _digest(pixels)):
        raise DamagedPixelsError(f"{path} is damaged (its digest does not fit)")
    return Decoded(
        torch.from_numpy(pixels).view(count, channels, side, side),
        torch.from_numpy(oblong != 0),
        dict(zip(header.wholes("warned"), header.texts("warnings"), strict=True)),
    )


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


def _digest(content: Bytes) -> str:
    """Return a digest of many bytes, computed on all cores: the digest of the digests of their parts."""
    parts = [content[start : start + _PART] for start in range(0, len(content), _PART)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = pool.map(lambda part: hashlib.sha256(part.data).digest(), parts)
        return hashlib.sha256(b"".join(digests)).hexdigest()
