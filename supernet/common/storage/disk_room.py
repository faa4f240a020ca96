"""Limit on the disk space of cached files, which removes those unused for longest to make room for new ones."""

import contextlib
import os
import shutil
from pathlib import Path

from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.formats.units import format_bytes, parse_bytes

#: Names how many bytes are kept.
VARIABLE = "FEDPARETO_CACHE_SIZE"

#: Bytes that are kept where nobody says how many.
_USUAL = 20 * 10**9

#: Most of the disk that cached files take, as a share of the space that would be free without them.
_SHARE = 0.5


class NoRoomError(UserError):
    """A file is larger than all the space cached files may take."""


def kept_bytes() -> int:
    """Return the user's limit on cached bytes; 0 keeps nothing.

    Raises:
        UserError: the variable of the environment holds no size.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return _USUAL
    try:
        return parse_bytes(text, least=0)
    except BudgetError as error:
        raise UserError(f"{VARIABLE} is wrong: {error}, or 0 to keep nothing") from error


def make_room(folder: Path, suffix: str, needed: int) -> None:
    """Remove files with a ``suffix`` from ``folder``, those unused for longest first, until ``needed`` bytes more fit.

    A process that has such a file open or mapped keeps its content: the name goes, and the bytes stay on the disk until
    the last process has closed them. Two processes that make room at once may together keep more than is allowed,
    until the next does.

    Raises:
        NoRoomError: they would not fit into an empty folder; nothing is removed then.
        UserError: ``kept_bytes`` raises it.
    """
    allowed = check_room(folder, suffix, needed)
    files = _by_last_use(folder, suffix)
    taken = sum(size for _, size, _ in files)
    for _, size, path in files:
        if taken + needed <= allowed:
            break
        # What may not be removed, or is gone, is left to whoever owns it.
        with contextlib.suppress(OSError):
            path.unlink()
            taken -= size


def check_room(folder: Path, suffix: str, needed: int) -> int:
    """Return the bytes that files with a ``suffix`` may take in ``folder``; nothing is removed.

    Raises:
        NoRoomError: ``needed`` bytes would not fit into an empty folder.
        UserError: ``kept_bytes`` raises it.
    """
    taken = sum(size for _, size, _ in _by_last_use(folder, suffix))
    allowed = min(kept_bytes(), int(_SHARE * (_free(folder) + taken)))
    if needed > allowed:
        bound = VARIABLE if allowed == kept_bytes() else "half of what the disk has free"
        raise NoRoomError(f"{format_bytes(needed)} are needed and {format_bytes(allowed)} may be kept ({bound})")
    return allowed


def mark_used(path: Path) -> None:
    """Mark a cached file as used now; if that fails, the file is only removed sooner."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _by_last_use(folder: Path, suffix: str) -> list[tuple[int, int, Path]]:
    """Return (time of last use, bytes, path) of the files with a suffix, oldest first."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix) and not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, Path(entry)))
    return sorted(found)


def _free(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on once it is made."""
    for place in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return 0
