"""Stamps of files: values of the file system about a file, which change whenever the file does."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NewType

#: Some file systems note times in steps of two seconds (FAT).
_STEP_NS = 2 * 10**9

#: Size, inode and times of a file, as a text: of 50,000 of them the garbage collector has nothing to look through. The
#: inode, and the time that the inode changed, which comes last, tell files apart whose size and time of writing were
#: made equal, as archives and copying programs do.
Stamp = NewType("Stamp", str)


def stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if there is no such file, or it may not be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return Stamp(f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}")


def stamps(paths: Sequence[Path]) -> list[Stamp | None]:
    """Return the stamps of files, in their order."""
    return [stamp(path) for path in paths]


def settled(stamped: Sequence[Stamp | None], now_ns: int) -> bool:
    """Return True if files stamped at ``now_ns`` are sure to get another stamp when they change later.

    A file that was written a moment ago may be written again within the same step of its clock.
    """
    return all(each is not None and int(each.split()[-1]) < now_ns - _STEP_NS for each in stamped)
