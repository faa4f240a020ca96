"""Decoded pictures kept in the user's cache folder, so that every command but the first maps them into memory.

An entry stands for one list of files and one preparation. Its name is a digest of all that the pixels depend on: the
files' absolute paths and stamps, the preparation and the program that does it, the versions of Pillow and of the
decoders behind it. So another state of the files, or another way to decode them, is another entry, and an old one is
never taken for it; what nobody uses any more makes way when room is needed (``supernet/room.py``).
"""

import functools
import hashlib
import json
import os
import pkgutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cache.progress import Listener
from supernet.errors import UserError
from supernet.kept import VARIABLE, kept_file, kept_folder
from supernet.room import kept_bytes, make_room, mark_used
from training.data.decoded import Decoded
from training.data.images import DataError
from training.data.pixel_file import VERSION, file_size, map_pixels, write_pixels
from training.data.preparation import Preparation
from training.data.stamps import Stamp, settled, stamps

KIND, SUFFIX = "pixels", ".pixels"

#: How often files that change while they are decoded are decoded again before the user is asked to wait.
_TRIES = 3

#: Libraries behind Pillow that decode; those it was built without have no version.
_DECODERS = ("jpg", "jpg_2000", "zlib", "libtiff", "webp", "avif")

Decoder = Callable[[Sequence[Path]], Decoded]


def kept_or_decoded(
    lists: Sequence[Sequence[Path]], preparation: Preparation, decode: Decoder, listener: Listener, *, keep: bool
) -> Decoded:
    """Return the pictures of the first of ``lists``: as they are kept, or decoded now and kept for the next time.

    Each further list is one that the list before was chosen from: where only that is kept, the pictures are taken
    out of it. Without ``keep`` nothing new is kept. Where nothing can be kept ``listener`` is told and all is well.

    Raises:
        DataError: a picture cannot be decoded, or files keep changing while they are.
        UserError: the environment says in no readable way how much may be kept.
    """
    paths = lists[0]
    allowed = kept_bytes()
    try:
        folder = kept_folder(KIND)
        if not allowed:
            make_room(folder, SUFFIX, 0)
    except UserError as error:
        listener.remark(f"{error}; the decoded images are not kept")
        allowed = 0
    if not allowed or not paths:
        return _decoded(paths, decode)[0]
    found = _found(lists, preparation, listener)
    if found is not None:
        return found
    begun = time.time_ns()
    decoded, stamped = _decoded(paths, decode)
    if keep and settled(stamped, begun):
        _keep(decoded, _path(paths, stamped, preparation), listener)
    return decoded


def _found(lists: Sequence[Sequence[Path]], preparation: Preparation, listener: Listener) -> Decoded | None:
    """Return the pictures of the first of ``lists`` out of what is kept; None if they are not in it."""
    for paths in lists:
        stamped = stamps(paths)
        if None in stamped:
            continue
        path, key = _path(paths, stamped, preparation)
        try:
            kept = map_pixels(path, key)
        except FileNotFoundError:
            continue
        except (OSError, UserError) as error:
            reason = f"cannot read {path}: {error.strerror or error}" if isinstance(error, OSError) else error
            listener.remark(f"{reason}; the images are decoded again")
            continue
        mark_used(path)
        return kept if paths is lists[0] else _chosen(kept, paths, lists[0])
    return None


def _chosen(kept: Decoded, paths: Sequence[Path], wanted: Sequence[Path]) -> Decoded:
    places = {path: position for position, path in enumerate(paths)}
    return kept.subset(torch.tensor([places[path] for path in wanted]))


def _decoded(paths: Sequence[Path], decode: Decoder) -> tuple[Decoded, list[Stamp | None]]:
    """Return pictures decoded, and the stamps of the files as they were decoded.

    What changes meanwhile is decoded again, so that all pictures are of one moment.

    Raises:
        DataError: a picture cannot be decoded, or files keep changing.
    """
    before = stamps(paths)
    decoded = decode(paths)
    for _ in range(_TRIES):
        after = stamps(paths)
        changed = [position for position, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
        if not changed:
            return decoded, after
        decoded = decoded.replaced(changed, decode([paths[position] for position in changed]))
        before = after
    raise DataError(f"{paths[changed[0]]} changes while it is read; start again when nothing writes to it any more")


def _keep(decoded: Decoded, place: tuple[Path, str], listener: Listener) -> None:
    path, key = place
    count, channels, side, _ = decoded.pixels.shape
    try:
        make_room(path.parent, SUFFIX, file_size(count, channels, side))
        write_pixels(path, key, decoded)
    except UserError as error:
        listener.remark(f"{error}; the decoded images are not kept (choose a folder with {VARIABLE})")


def _path(paths: Sequence[Path], stamped: Sequence[Stamp | None], preparation: Preparation) -> tuple[Path, str]:
    """Return where the pictures of files are kept, and the key they are kept under."""
    digest = hashlib.sha256(json.dumps([VERSION, preparation.to_json(), *_program()]).encode())
    here = os.getcwd()
    for path, each in zip(paths, stamped, strict=True):
        digest.update(f"{os.path.join(here, path)!a} {each}\n".encode())
    key = digest.hexdigest()
    name = f"{len(paths)}-of-{preparation.side}x{preparation.side}x{preparation.channels}"
    return kept_file(KIND, name, key[:32], SUFFIX), key


@functools.cache
def _program() -> tuple[str | None, ...]:
    """Return what decodes pictures here: this program's own part, and the versions of the libraries."""
    from PIL import __version__, features  # noqa: PLC0415 - needed where something is kept

    # The text itself: a change of it that forgets to say so would leave pixels of the old way.
    source = pkgutil.get_data("training.data", "preparation.py") or b""
    versions = (str(features.version(name)) for name in _DECODERS)
    return (hashlib.sha256(source).hexdigest(), __version__, *versions)
