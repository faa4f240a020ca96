"""Flower, and nothing but Flower: the only module that imports flwr.

The ServerApp is a relay. It has no opinion on what a round is: it does what the command at the other end of the line
asks, sends messages, collects replies. The ClientApp hands each message to ``node.py``. Both use Flower's message API;
its strategies need equal shapes from all clients and are not used.
"""

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.run import RunNotRunningException

from training.flower.line import MALFORMED, SOCKET, TOO_LARGE, Line, LineLost, remove_abandoned

client = ClientApp()
server = ServerApp()

_HEADER, _BLOB, _JSON = "header", "blob", "json"
_STYPE = "safetensors"
#: Seconds between the end of a line and a look whether the command was killed.
_BURIAL = 1.0
_TOO_LARGE = "larger than any answer to this message"


@client.train()
def _train(message: Message, context: Context) -> Message:
    return _answered(message, context)


@client.query()
def _query(message: Message, context: Context) -> Message:
    return _answered(message, context)


def _answered(message: Message, context: Context) -> Message:
    # Loads torch, which the ServerApp does without.
    from training.flower.node import answer  # noqa: PLC0415

    header, blob = _unpacked(message.content)
    return Message(_packed(*answer(header, blob, dict(context.node_config))), reply_to=message)


@server.main()
def _relay(grid: Grid, context: Context) -> None:
    """Serve the command that submitted this run until it hangs up."""
    folder = Path(str(context.run_config["line"]))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / SOCKET))
        line, relay = Line(connection), _Relay(grid, folder)
        with contextlib.suppress(LineLost):
            while (asked := line.read()) is not None:
                line.write(relay.done(asked))
    # A process that was killed is there until its parent has looked.
    time.sleep(_BURIAL)
    remove_abandoned(folder)


class _Relay:
    """Does what is asked over the line."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self._grid, self._folder = grid, folder
        # Replies are pulled as objects of some megabytes each; only what pulls them can say when there are too many.
        self._bound = _BoundedClient(grid._runtime_client)  # type: ignore[attr-defined]
        grid._client = self._bound  # type: ignore[attr-defined]

    def done(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["do"] == "nodes":
            return {"nodes": [str(node) for node in self._grid.get_node_ids()]}
        if asked["do"] == "send":
            return {"message": self._send(asked)}
        return {"replies": [reply for name, most in asked["messages"].items() for reply in self._replies(name, most)]}

    def _send(self, asked: dict[str, Any]) -> str | None:
        blob = (self._folder / asked["blob"]).read_bytes() if asked["blob"] else b""
        message = Message(
            _packed(asked["header"].encode(), blob),
            dst_node_id=int(asked["node"]),
            message_type=asked["type"],
            ttl=asked["ttl"],
            group_id=asked["group"],
        )
        # A node that has just left is not there to be sent anything.
        return next(iter(self._grid.push_messages([message])), None)

    def _replies(self, name: str, most: int) -> list[dict[str, Any]]:
        """Return the reply to a message in a list, or an empty one while there is none."""
        self._bound.left = most
        try:
            return [self._described(name, reply) for reply in self._grid.pull_messages([name])]
        except (httpx.HTTPError, RunNotRunningException, OSError):
            raise
        except Exception as error:
            return [{"message": name, "error": MALFORMED, "reason": f"a message that cannot be read ({error!r})"}]

    def _described(self, name: str, reply: Message) -> dict[str, Any]:
        if reply.has_error():
            reason = str(reply.error.reason)
            code = TOO_LARGE if _TOO_LARGE in reason else reply.error.code
            return {"message": name, "error": code, "reason": reason}
        header, blob = _unpacked(reply.content)
        file = f"reply-{name}"
        (self._folder / file).write_bytes(blob)
        # Bytes that are no text are left for the command to refuse.
        return {"message": name, "header": header.decode(errors="replace"), "blob": file}


class _BoundedClient:
    """Flower's runtime client, which gives up a reply that is larger than it may be."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.left = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def PullObject(self, request: Any) -> Any:  # noqa: N802 - Flower's name
        response = self._inner.PullObject(request)
        self.left -= len(response.object_content)
        if self.left < 0:
            raise ObjectPullError(request.object_id, _TOO_LARGE)
        return response


def _packed(header: bytes, blob: bytes) -> RecordDict:
    """Return a header and one array of bytes: hundreds of arrays would cost seconds a message."""
    array = Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=blob)
    return RecordDict({_HEADER: ConfigRecord({_JSON: header.decode()}), _BLOB: ArrayRecord({_BLOB: array})})


def _unpacked(content: RecordDict) -> tuple[bytes, bytes]:
    """Return the header and the blob of a message; what is missing or of another type is empty."""
    headers, blobs = content.config_records.get(_HEADER), content.array_records.get(_BLOB)
    header = None if headers is None else headers.get(_JSON)
    blob = None if blobs is None else blobs.get(_BLOB)
    return (header.encode() if isinstance(header, str) else b""), (blob.data if isinstance(blob, Array) else b"")
