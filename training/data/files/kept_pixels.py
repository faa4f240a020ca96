"""Disk cache of decoded pictures in the user's cache folder: every command but the first maps them into memory.

An entry holds the pixels of one list of files with one preparation. Its name is a digest of all that the pixels depend
on: the files' absolute paths and stamps, the preparation and the program that does it, the versions of Pillow and of
the decoders behind it. So another state of the files, or another way to decode them, is another entry, and an old one
is never taken for it. Unused entries are removed when room is needed (``supernet/common/storage/disk_room.py``).
"""

import contextlib
import hashlib
import json
import os
import pkgutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.cache_folder import VARIABLE, NowhereKeptError, kept_file, kept_folder
from fedpareto.supernet.common.storage.disk_room import kept_bytes, make_room, mark_used
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files import preparation as decoder
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.pixel_file import VERSION, file_size, map_pixels, write_pixels
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.stamps import Stamp, settled, stamps
from fedpareto.training.data.images import DataError

KIND, SUFFIX = "pixels", ".pixels"

#: How often files that change while they are decoded are decoded again before the user is asked to wait.
_TRIES = 3

#: Libraries behind Pillow that decode; those it was built without have no version.
_DECODERS = ("jpg", "jpg_2000", "zlib", "libtiff", "webp", "avif")

#: A part of what is kept is kept by itself if it is no larger a share.
_PART = 0.5

Decoder = Callable[[Sequence[Path]], Decoded]


class Place(NamedTuple):
    """Cache file of the pictures of some files, and the key that it must hold."""

    path: Path
    key: str


def kept_or_decoded(
    lists: Sequence[Sequence[Path]],
    preparation: Preparation,
    decode: Decoder,
    listener: ProgressListener,
    *,
    keep: bool,
) -> Decoded:
    """Return the pictures of the first of ``lists``, from the cache, or decoded now and cached for the next time.

    Each further list contains the list before it. Where only a larger list is cached the pictures are taken out of it;
    a small part is then cached by itself, so that the next command need not look through the whole. Without ``keep``
    nothing new is cached. Where nothing can be cached ``listener`` is told, and that is no error.

    Raises:
        DataError: a picture cannot be decoded, or files keep changing while they are.
        UserError: the environment says in no readable way how much may be kept.
    """
    paths = lists[0]
    keeping = bool(paths) and may_keep(listener)
    found = _found(lists, preparation, listener, keep=keep) if keeping else None
    if found is not None:
        return found
    begun = time.time_ns()
    decoded, stamped = _decoded(paths, decode)
    if keeping and keep and settled(stamped, begun):
        _keep(decoded, place_of(paths, stamped, preparation), listener)
    return decoded


def may_keep(listener: ProgressListener) -> bool:
    """Return True if anything may be cached; where nothing may, all that was cached before is removed.

    Raises:
        UserError: the environment says in no readable way how much may be kept.
    """
    allowed = kept_bytes()
    try:
        folder = kept_folder(KIND)
    except NowhereKeptError as error:
        listener.remark(f"{error}; the decoded images are not kept")
        return False
    if not allowed:
        make_room(folder, SUFFIX, 0)
    return allowed > 0


def _found(
    lists: Sequence[Sequence[Path]], preparation: Preparation, listener: ProgressListener, *, keep: bool
) -> Decoded | None:
    """Return the pictures of the first of ``lists`` from the cache; None if they are not in it."""
    wanted = lists[0]
    for paths in lists:
        stamped = stamps(paths)
        kept = None if None in stamped else _kept(place_of(paths, stamped, preparation), listener)
        if kept is None:
            continue
        if paths is wanted:
            return kept
        numbers = {path: position for position, path in enumerate(paths)}
        positions = [numbers[path] for path in wanted]
        chosen = kept.subset(torch.tensor(positions))
        if keep and len(wanted) <= _PART * len(paths):
            _keep(chosen, place_of(wanted, [stamped[position] for position in positions], preparation), listener)
        return chosen
    return None


def _kept(place: Place, listener: ProgressListener) -> Decoded | None:
    """Return the pictures in a cache file; None if there is no usable file."""
    try:
        kept = map_pixels(place.path, place.key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UserError) as error:
        reason = f"cannot read {place.path}: {error.strerror or error}" if isinstance(error, OSError) else error
        listener.remark(f"{reason}; the images are decoded again")
        return None
    mark_used(place.path)
    return kept


def _decoded(paths: Sequence[Path], decode: Decoder) -> tuple[Decoded, list[Stamp | None]]:
    """Decode pictures; return them with the stamps of the files at that time.

    Files that change meanwhile are decoded again, so that all pictures are of one moment.

    Raises:
        DataError: a picture cannot be decoded, or files keep changing.
    """
    before = stamps(paths)
    decoded = decode(paths)
    for left in reversed(range(_TRIES + 1)):
        after = stamps(paths)
        changed = [position for position, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
        if not changed:
            break
        if not left:
            raise DataError(
                f"{paths[changed[0]]} changes while it is read; start again when nothing writes to it any more"
            )
        decoded = decoded.replaced(changed, decode([paths[position] for position in changed]))
        before = after
    return decoded, after


def _keep(decoded: Decoded, place: Place, listener: ProgressListener) -> None:
    count, channels, side, _ = decoded.pixels.shape
    try:
        make_room(place.path.parent, SUFFIX, file_size(count, channels, side))
        write_pixels(place.path, place.key, decoded)
    except UserError as error:
        listener.remark(f"{error}; the decoded images are not kept (choose a folder with {VARIABLE})")


def place_of(paths: Sequence[Path], stamped: Sequence[Stamp | None], preparation: Preparation) -> Place:
    """Return the cache file for the pictures of files with these stamps."""
    digest = hashlib.sha256(json.dumps([VERSION, preparation.to_json(), *_program()]).encode())
    for path, each in zip(paths, stamped, strict=True):
        text = os.fspath(path)
        digest.update(f"{text if os.path.isabs(text) else os.path.abspath(text)!a} {each}\n".encode())
    key = digest.hexdigest()
    name = f"{len(paths)}-of-{preparation.side}x{preparation.side}x{preparation.channels}"
    return Place(kept_file(KIND, name, key[:32], SUFFIX), key)


def _program() -> tuple[str | None, ...]:
    """Return the identity of the decoder: this program's own part of it, and the versions of the libraries."""
    from PIL import __version__, features  # noqa: PLC0415 - needed where something is kept

    source = b""
    # The text itself: whoever changes it need not think of pixels of the old way. Where a program is installed
    # without its text, nobody changes it, and the description of the preparation tells versions apart.
    with contextlib.suppress(OSError):
        source = pkgutil.get_data(decoder.__package__ or "", "preparation.py") or b""
    versions = (str(features.version(name)) for name in _DECODERS)
    return (hashlib.sha256(source).hexdigest(), __version__, *versions)
