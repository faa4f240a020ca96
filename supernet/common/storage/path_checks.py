"""Checks of paths in the file system, whose failures are one-line errors.

A path from outside may be too long, run in circles, or lead through a folder that may not be searched. So even the
question whether something is there can fail.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.errors import UserError

#: Bytes that a temporary file's name has more than that of the file it becomes; bytes of names in a folder of ours.
_BESIDE, _BELOW = 40, 256


@contextlib.contextmanager
def reaching(path: Path, verb: str = "read") -> Iterator[None]:
    """Turn errors of the file system in the block into one line that names ``path``.

    Raises:
        UserError: the system refused, or the path is one that no file can have.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot {verb} {path}: {error.strerror or error}") from error
    except ValueError as error:
        # What python says of a path that holds a NUL or half a character.
        raise UserError(f"cannot {verb} {str(path)!r}: {error}") from error


def status(path: Path, verb: str = "read") -> os.stat_result | None:
    """Return the status (``os.stat``) of ``path``, links followed; None if nothing is there.

    ``verb`` says in errors what was to be done with it.

    Raises:
        UserError: that cannot be found out.
    """
    with reaching(path, verb):
        try:
            return path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None


def exists(path: Path, verb: str = "read") -> bool:
    """Return True if anything is at ``path``.

    Raises:
        UserError: that cannot be found out.
    """
    return status(path, verb) is not None


def is_file(path: Path, verb: str = "read") -> bool:
    """Return True if an ordinary file is at ``path``.

    Raises:
        UserError: that cannot be found out.
    """
    found = status(path, verb)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path, verb: str = "read") -> bool:
    """Return True if a folder is at ``path``.

    Raises:
        UserError: that cannot be found out.
    """
    found = status(path, verb)
    return found is not None and stat.S_ISDIR(found.st_mode)


def children(folder: Path) -> list[Path]:
    """Return the paths in ``folder``, sorted by name; none if it is not there.

    Raises:
        UserError: the folder cannot be read.
    """
    with reaching(folder):
        try:
            return sorted(folder.iterdir())
        except FileNotFoundError:
            return []


def check_readable(path: Path, most: int | None = None) -> None:
    """Refuse to read devices and folders, and files that are larger than allowed.

    Raises:
        UserError: ``path`` is a folder or a device, or has more than ``most`` bytes.
    """
    found = status(path)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode) or stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "device"
        raise UserError(f"cannot read {path}: it is a {kind}, not a file")
    if most is not None and found.st_size > most:
        raise UserError(f"cannot read {path}: it has {found.st_size:,} bytes; such a file has at most {most:,}")


def check_length(path: Path, folder: Path) -> None:
    """Refuse a path whose length leaves no room for temporary names beside it and names below it.

    Args:
        path: a file or folder that is not there yet.
        folder: the nearest folder above it that exists.

    Raises:
        UserError: a name in it, or all of it, is too long for the file system.
    """
    name, whole = os.pathconf(folder, "PC_NAME_MAX") - _BESIDE, os.pathconf(folder, "PC_PATH_MAX") - _BELOW
    if any(len(os.fsencode(part)) > name for part in path.parts):
        raise UserError(f"cannot write {path}: a name in it has more than {name} bytes; choose a shorter one")
    if len(os.fsencode(path)) > whole:
        raise UserError(f"cannot write {path}: it has more than {whole} bytes; choose a shorter path")
