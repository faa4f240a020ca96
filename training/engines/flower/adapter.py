"""Adapter to Flower, with the ServerApp and the ClientApp; the only module that imports flwr.

The ServerApp is a relay and knows nothing of rounds: it sends messages and collects replies for the command at the
other end of its line. The ClientApp hands each message to ``node.py``. Both use Flower's message API. Flower's
strategies are not used, because they need equal shapes from all clients.
"""

import contextlib
import dataclasses
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedpareto.training.engines.flower.relay_socket import (
    GONE,
    MALFORMED,
    SOCKET,
    TOO_LARGE,
    Line,
    LineLost,
    remove_abandoned,
)

client = ClientApp()
server = ServerApp()

_HEADER, _BLOB, _JSON = "header", "blob", "json"
_STYPE = "safetensors"
#: Seconds between the end of a line and a look whether the command was killed.
_BURIAL = 1.0
#: Seconds that one look for replies may take; what is left is pulled at the next.
_LOOK = 20.0
#: Objects of a reply beside its megabytes: those that hold header and records.
_FEW_OBJECTS = 64


@client.train()
def _train(message: Message, context: Context) -> Message:
    return _answered(message, context)


@client.query()
def _query(message: Message, context: Context) -> Message:
    return _answered(message, context)


def _answered(message: Message, context: Context) -> Message:
    with _failing_when_told_to_end():
        # Loads torch, which the ServerApp does without.
        from fedpareto.training.engines.flower.node import answer  # noqa: PLC0415

        header, blob = _unpacked(message.content)
        return Message(_packed(*answer(header, blob, dict(context.node_config))), reply_to=message)


class _ToldToEnd(BaseException):
    """Signal that the process is told to end; no ``Exception``, as some are swallowed while torch is imported."""


@contextlib.contextmanager
def _failing_when_told_to_end() -> Iterator[None]:
    """Turn SIGTERM into an error of the client, which Flower reports.

    Flower's own handler ends the process without a reply, and the SuperNode would wait for one for ever.
    """

    def fail(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise _ToldToEnd

    before = signal.signal(signal.SIGTERM, fail)
    try:
        yield
    except _ToldToEnd as end:
        raise RuntimeError("the client's process was told to end") from end
    finally:
        signal.signal(signal.SIGTERM, before)


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
    """Relay: carries out the requests that come over the line."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self._grid, self._folder = grid, folder
        runtime = grid._runtime_client  # type: ignore[attr-defined]
        grid._client = RepeatableClient(runtime)  # type: ignore[attr-defined]
        self._incoming = Incoming(runtime, grid.node, grid.run.run_id)  # type: ignore[attr-defined]

    def done(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["do"] == "nodes":
            return {"nodes": [str(node) for node in self._grid.get_node_ids()]}
        if asked["do"] == "send":
            return {"message": self._send(asked)}
        arrived = self._incoming.arrived(asked["messages"])
        return {"replies": [self._described(name, reply) for name, reply in arrived]}

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
        return next(iter(self._grid.push_messages([message])), None) or None

    def _described(self, name: str, reply: "Message | Unreadable") -> dict[str, Any]:
        if isinstance(reply, Unreadable):
            return {"message": name, "error": reply.code, "reason": reply.reason}
        if reply.has_error():
            return {"message": name, "error": reply.error.code, "reason": str(reply.error.reason)}
        try:
            header, blob = _unpacked(reply.content)
        except Exception as error:
            return {"message": name, "error": MALFORMED, "reason": f"a message that cannot be read ({error!r})"}
        file = f"reply-{name}"
        (self._folder / file).write_bytes(blob)
        # Bytes that are no text are left for the command to refuse.
        return {"message": name, "header": header.decode(errors="replace"), "blob": file}


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """Reply that cannot be pulled, with the reason: one of the codes of ``relay_socket.py``."""

    code: int
    reason: str


class _Partial:
    """Reply of which some objects are still to be pulled."""

    def __init__(self, tree: ObjectTree) -> None:
        self.name = tree.object_id
        self.missing = [part.object_id for part in iterate_object_tree(tree)]
        self.contents: dict[str, bytes] = {}

    def forget(self) -> None:
        """Drop all of the reply, so that it can be pulled again."""
        self.missing += self.contents
        self.contents.clear()


class Incoming:
    """Incoming replies: each is pulled object by object as it is uploaded, so that none waits for another.

    Flower's own ``pull_messages`` returns when all objects of all replies are there: one node that has announced a
    reply and uploads slowly, or never, would hold up the answers of all.

    Args:
        client: Flower's runtime client.
        node: the SuperLink's own node.
        run: id of the run.
    """

    def __init__(self, client: Any, node: Node, run: int) -> None:
        self._client, self._node, self._run = client, node, run
        self._partial: dict[str, _Partial] = {}

    def arrived(self, messages: Mapping[str, int]) -> Iterator[tuple[str, Message | Unreadable]]:
        """Yield every reply that is complete; ``messages`` has the most bytes of the reply to each message."""
        self._announce(messages)
        end = time.monotonic() + _LOOK
        for name, partial in list(self._partial.items()):
            if name not in messages:
                # Nobody may wait for it any more.
                partial.forget()
                continue
            if time.monotonic() > end:
                return
            found = self._pulled(partial, messages[name], end)
            if found is not None:
                del self._partial[name]
                # The SuperLink may forget it, also one that is not wanted.
                self._client.ConfirmMessageReceived(
                    ConfirmMessageReceivedRequest(node=self._node, run_id=self._run, message_object_id=partial.name)
                )
                yield name, found

    def _announce(self, messages: Mapping[str, int]) -> None:
        """Take note of new replies; Flower announces each once, and forgets the message it answers."""
        new = [name for name in messages if name not in self._partial]
        if new:
            found = self._client.PullMessages(PullAppMessagesRequest(message_ids=new))
            for reply, tree in zip(found.messages_list, found.message_object_trees, strict=True):
                self._partial[reply.metadata.reply_to_message_id] = _Partial(tree)

    def _pulled(self, partial: _Partial, most: int, end: float) -> Message | Unreadable | None:
        """Pull the objects that are there; return the reply if it is complete, None if more is to come."""
        if len(partial.missing) > _FEW_OBJECTS + most // (1 << 20):
            return Unreadable(TOO_LARGE, "of more pieces than any answer to this message")
        while partial.missing:
            name = partial.missing[0]
            part = self._client.PullObject(PullObjectRequest(node=self._node, run_id=self._run, object_id=name))
            if not part.object_found:
                return Unreadable(GONE, "its upload was given up")
            if not part.object_available:
                return None
            partial.contents[name] = part.object_content
            del partial.missing[0]
            if sum(map(len, partial.contents.values())) > most:
                return Unreadable(TOO_LARGE, "larger than any answer to this message")
            if time.monotonic() > end:
                return None
        try:
            reply = inflate_object_from_contents(partial.name, partial.contents)
        except Exception as error:
            return Unreadable(MALFORMED, f"a message that cannot be read ({error!r})")
        return reply if isinstance(reply, Message) else Unreadable(MALFORMED, "no message")


class RepeatableClient:
    """Flower's runtime client, with an upload that succeeds if the object has been stored already.

    When the answer to a ``PushObject`` is lost, as with a SuperLink that is killed, Flower's client asks again, is told
    that nothing is to be stored, and gives the run up.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def PushObject(self, request: Any) -> Any:  # noqa: N802 - Flower's name
        """Store an object."""
        response = self._inner.PushObject(request)
        if not response.stored:
            again = PullObjectRequest(node=request.node, run_id=request.run_id, object_id=request.object_id)
            response.stored = self._inner.PullObject(again).object_available
        return response


def _packed(header: bytes, blob: bytes) -> RecordDict:
    """Return a message's content: a header and one array of bytes; hundreds of arrays would cost seconds a message."""
    array = Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=blob)
    return RecordDict({_HEADER: ConfigRecord({_JSON: header.decode()}), _BLOB: ArrayRecord({_BLOB: array})})


def _unpacked(content: RecordDict) -> tuple[bytes, bytes]:
    """Return the header and the blob of a message; a part that is missing or of another type is empty."""
    headers, blobs = content.config_records.get(_HEADER), content.array_records.get(_BLOB)
    header = None if headers is None else headers.get(_JSON)
    blob = None if blobs is None else blobs.get(_BLOB)
    return (header.encode() if isinstance(header, str) else b""), (blob.data if isinstance(blob, Array) else b"")
