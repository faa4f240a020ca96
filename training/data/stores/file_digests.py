"""Digests of images by their files: they tell changed images without decoding any; they are kept for later commands."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.cache_folder import kept_file
from fedpareto.supernet.common.storage.disk_room import kept_bytes
from fedpareto.supernet.common.storage.files import read_text, write_text
from fedpareto.training.config.data import Fit
from fedpareto.training.data.files.stamps import settled, stamps
from fedpareto.training.data.images import DataError, ImageSet

#: What tells digests of files from digests of pixels.
PREFIX = "files-"

_KIND, _SUFFIX = "file-digests", ".txt"

_DIGEST = re.compile(r"[0-9a-f]{64}")


def files_digest(data: ImageSet, fit: Fit) -> str:
    """Digest of the files of images, their labels, classes, shape and fit, which begins with ``PREFIX``.

    Raises:
        DataError: a file cannot be read, or the images have no files.
    """
    if data.paths is None:
        raise DataError("the images have no files of their own, and had them when the run was started")
    digest = hashlib.sha256(repr((tuple(data.images.shape), data.classes, fit)).encode())
    digest.update(_content(data.paths).encode())
    digest.update(data.labels.cpu().contiguous().numpy().data)
    return PREFIX + digest.hexdigest()[:16]


def _content(paths: Sequence[Path]) -> str:
    """Digest of the content of files, in their order; kept for as long as the files have the same stamps."""
    begun, stamped = time.time_ns(), stamps(paths)
    key = hashlib.sha256()
    for path, each in zip(paths, stamped, strict=True):
        key.update(f"{os.path.abspath(path)!a} {each}\n".encode())
    kept = None
    # A user without a folder to keep things in waits for the digest every time.
    with contextlib.suppress(UserError):
        kept = kept_file(_KIND, f"{len(paths)}-files", key.hexdigest()[:32], _SUFFIX) if kept_bytes() else None
        if kept is not None and kept.is_file() and _DIGEST.fullmatch(text := read_text(kept)):
            return text
    digest = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for own in pool.map(_of_file, paths):
            digest.update(own)
    found = digest.hexdigest()
    if kept is not None and settled(stamped, begun):
        with contextlib.suppress(UserError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, found)
    return found


def _of_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
