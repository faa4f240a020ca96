"""Standard streams of a command, made safe: closed or unable to print a character, they cause no traceback."""

import contextlib
import io
import os
import sys
from typing import TextIO

from fedpareto.supernet.common.errors import UserError

#: How streams treat characters that they cannot encode, where that may end in an error.
_REFUSING = ("strict", "surrogateescape", "surrogatepass")


def open_streams() -> None:
    """Prepare the standard streams for a command.

    Characters that a terminal cannot print are replaced. Standard input and error that were closed read and write
    nothing: were their numbers free, the next file that is opened would have them.

    Raises:
        UserError: standard output is closed, so that results would be lost.
    """
    closed = sys.stdout is None
    for stream in range(3):
        _keep_open(stream)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if closed:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise UserError("standard output is closed; send it to a file, or to /dev/null")
    for written in (sys.stdout, sys.stderr):
        # A locale without UTF-8 has "surrogateescape", which refuses letters that it lacks as "strict" does.
        if isinstance(written, io.TextIOWrapper) and written.errors in _REFUSING:
            written.reconfigure(errors="replace")


def close_streams() -> None:
    """Flush the streams, and discard whatever cannot be written: Python would try again at exit."""
    for written in (sys.stdout, sys.stderr):
        try:
            written.flush()
        except (OSError, ValueError):
            _throw_away(written)


def _throw_away(written: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, written.fileno())
        os.close(descriptor)


def _keep_open(stream: int) -> None:
    try:
        os.fstat(stream)
    except OSError:
        # The lowest free number is given out first, which is this one.
        os.open(os.devnull, os.O_RDWR)
