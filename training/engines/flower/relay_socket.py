"""Line between a command and the ServerApp that Flower started for it: JSON lines over a Unix socket.

Blobs do not travel over the line: they are files in the command's own folder, which both processes can read. The
folder is private to the user. So anybody who can open the socket could also send the command a signal.
"""

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.formats.json_text import parse_json

#: Name of the socket in the command's folder.
SOCKET = "line"

#: What the ServerApp itself says of a reply, beside Flower's error codes, which are positive.
MALFORMED, TOO_LARGE, GONE = -1, -2, -3


#: File in the command's folder that holds its process id.
PID = "pid"


def remove_abandoned(folder: Path) -> None:
    """Remove a command's folder if the command was killed, and so could not do it itself."""
    try:
        os.kill(int((folder / PID).read_text()), 0)
    except ProcessLookupError:
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        # It has been removed, or the process is somebody else's by now.
        return


class LineLost(Exception):  # noqa: N818 - an event of every long run rather than an error
    """Error of a line whose other end is gone, or answers no more."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """Reply to one message: the client's answer, or an error.

    Attributes:
        header: header of the client's answer; empty if there is no answer.
        blob: file of its tensors.
        error: Flower's own error code, or one of those above, if there is no answer.
        reason: Flower's words about the error.
    """

    header: bytes
    blob: Path | None
    error: int | None = None
    reason: str = ""


class Line:
    """End of a connected line: a request or an answer is one JSON object on a line of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rwb")

    def write(self, fields: Mapping[str, Any]) -> None:
        """Send one object.

        Raises:
            LineLost: the other end is closed.
        """
        try:
            self._file.write(json.dumps(fields).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise LineLost(str(error)) from error

    def read(self) -> dict[str, Any] | None:
        """Return the next object, or None when the other end has closed the line.

        Raises:
            LineLost: nothing came within the socket's timeout, or the text is not JSON.
        """
        try:
            text = self._file.readline()
        except OSError as error:
            raise LineLost(str(error)) from error
        if not text.endswith(b"\n"):
            return None
        fields: dict[str, Any] = parse_json(text.decode(errors="replace"), "the line", LineLost)
        return fields

    def close(self) -> None:
        """Close the line."""
        # The file holds the descriptor too; a line that is already lost may refuse the last bytes.
        for part in (self._file, self._connection):
            try:
                part.close()
            except OSError:
                continue
