"""Flower's side of the line: replies that come in pieces, calls that are repeated, a client that is told to end."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity

from fedpareto.training.engines.flower import adapter
from fedpareto.training.engines.flower.adapter import Incoming, RepeatableClient, Unreadable
from fedpareto.training.engines.flower.relay_socket import GONE, MALFORMED, TOO_LARGE

_MOST = 40 << 20


class _SuperLink:
    """What a SuperLink tells a ServerApp of replies: that there is one, once, and its objects as they are uploaded."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes | None] = {}
        self.uploads: dict[str, dict[str, bytes]] = {}
        self.announced: dict[str, tuple[Any, Any]] = {}
        self.claimed: set[str] = set()
        self.pulled: list[str] = []
        self.confirmed: list[str] = []

    def announce(self, name: str, blob: bytes, header: str = "{}") -> None:
        """Let a node announce its reply to the message ``name``."""
        content = RecordDict(
            {
                "header": ConfigRecord({"json": header}),
                "blob": ArrayRecord({"blob": Array("uint8", (len(blob),), "safetensors", blob)}),
            }
        )
        asked = Message(RecordDict(), 1, "train")
        asked.metadata.__dict__["_message_id"] = name
        reply = Message(content, reply_to=asked)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree = get_object_tree(reply)
            pieces = {one: part.deflate() for one, part in get_all_nested_objects(reply).items()}
        self.objects |= dict.fromkeys(pieces)
        self.uploads[name] = pieces
        self.announced[name] = message_to_proto(remove_content_from_message(reply)), tree

    def upload(self, name: str, pieces: int | None = None) -> None:
        """Let the node upload all of its reply, or the first pieces."""
        for piece in list(self.uploads[name])[:pieces]:
            self.objects[piece] = self.uploads[name][piece]

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's names
        assert not self.claimed & set(request.message_ids), "Flower knows a message no more whose reply it announced"
        new = [name for name in request.message_ids if name in self.announced]
        self.claimed.update(new)
        protos, trees = [self.announced[name][0] for name in new], [self.announced[name][1] for name in new]
        return PullAppMessagesResponse(messages_list=protos, message_object_trees=trees)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802
        self.pulled.append(request.object_id)
        if request.object_id not in self.objects:
            return PullObjectResponse(object_found=False)
        content = self.objects[request.object_id]
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> Any:  # noqa: N802
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:  # noqa: N802
        """Store what is expected; what is there already is expected no more."""
        expected = request.object_id in self.objects and self.objects[request.object_id] is None
        if expected:
            self.objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=expected)


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> _SuperLink:
    # Flower's processes learn from the SuperLink who they are; messages name it.
    for name, value in {"_task_id": 3, "_run_id": 7, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    return _SuperLink()


@pytest.fixture
def incoming(superlink: _SuperLink) -> Incoming:
    return Incoming(superlink, Node(node_id=1), 7)


def _arrived(incoming: Incoming, *names: str, most: int = _MOST) -> dict[str, Message | Unreadable]:
    return dict(incoming.arrived(dict.fromkeys(names, most)))


def _blob(reply: Message | Unreadable) -> bytes:
    assert isinstance(reply, Message)
    return adapter._unpacked(reply.content)[1]


@pytest.mark.parametrize("size", [0, 1000, 12 << 20])
def test_a_reply_that_is_all_there_comes_as_it_was_sent(superlink: _SuperLink, incoming: Incoming, size: int) -> None:
    blob = os.urandom(size)
    superlink.announce("m1", blob, '{"a": 1}')
    superlink.upload("m1")
    (reply,) = _arrived(incoming, "m0", "m1").values()
    assert isinstance(reply, Message)
    assert adapter._unpacked(reply.content) == (b'{"a": 1}', blob)
    assert superlink.confirmed == [superlink.announced["m1"][1].object_id]
    assert _arrived(incoming, "m0") == {}


def test_a_reply_that_is_not_all_there_holds_up_no_other(superlink: _SuperLink, incoming: Incoming) -> None:
    for name in ("slow", "never", "whole"):
        superlink.announce(name, name.encode())
    superlink.upload("slow", 2)
    superlink.upload("whole")
    assert list(_arrived(incoming, "slow", "never", "whole")) == ["whole"]
    assert _arrived(incoming, "slow", "never") == {}
    superlink.upload("slow")
    pulled = len(superlink.pulled)
    (found,) = _arrived(incoming, "slow", "never").items()
    assert (found[0], _blob(found[1])) == ("slow", b"slow")
    # What was there is not pulled again; the other reply was looked for once.
    assert len(superlink.pulled) - pulled == len(superlink.uploads["slow"]) - 2 + 1
    assert len(superlink.confirmed) == 2


def test_a_reply_that_nobody_waits_for_takes_no_memory_and_may_be_asked_for_later(
    superlink: _SuperLink, incoming: Incoming
) -> None:
    superlink.announce("m1", b"x" * 1000)
    superlink.upload("m1", 3)
    assert _arrived(incoming, "m1") == {}
    held = incoming._partial["m1"].contents
    assert held
    assert _arrived(incoming, "other") == {}
    assert not held
    superlink.upload("m1")
    assert _blob(_arrived(incoming, "m1")["m1"]) == b"x" * 1000


def test_a_reply_may_be_as_large_as_was_said_and_no_larger(superlink: _SuperLink, incoming: Incoming) -> None:
    for name in ("m1", "m2"):
        superlink.announce(name, name.encode() * 500)
        superlink.upload(name)
    size = sum(map(len, superlink.uploads["m1"].values()))
    assert _blob(_arrived(incoming, "m1", most=size)["m1"]) == b"m1" * 500
    refused = _arrived(incoming, "m2", most=size - 1)["m2"]
    assert refused == Unreadable(TOO_LARGE, "larger than any answer to this message")
    # It need not be kept either.
    assert len(superlink.confirmed) == 2


def test_a_reply_of_countless_pieces_is_not_pulled(superlink: _SuperLink, incoming: Incoming) -> None:
    superlink.announce("m1", b"")
    proto, tree = superlink.announced["m1"]
    for index in range(100):
        tree.children.add(object_id=f"{index:064x}")
    superlink.announced["m1"] = proto, tree
    refused = _arrived(incoming, "m1", most=1 << 20)["m1"]
    assert isinstance(refused, Unreadable)
    assert refused.code == TOO_LARGE
    assert superlink.pulled == []


def test_a_reply_whose_upload_was_given_up_is_gone(superlink: _SuperLink, incoming: Incoming) -> None:
    superlink.announce("m1", b"x")
    superlink.objects.clear()
    assert _arrived(incoming, "m1") == {"m1": Unreadable(GONE, "its upload was given up")}
    assert _arrived(incoming, "m0") == {}


@pytest.mark.parametrize("odd", ["cut", "no message", "no object"])
def test_a_reply_that_is_no_message_is_malformed(superlink: _SuperLink, incoming: Incoming, odd: str) -> None:
    superlink.announce("m1", b"x")
    superlink.upload("m1")
    root = superlink.announced["m1"][1].object_id
    pieces = superlink.uploads["m1"]
    record = next(piece for piece in pieces.values() if piece.startswith(b"ConfigRecord"))
    superlink.objects[root] = {"cut": pieces[root][:-1], "no message": record, "no object": b"\x80\x04pickle"}[odd]
    (refused,) = _arrived(incoming, "m1").values()
    assert isinstance(refused, Unreadable)
    assert refused.code == MALFORMED


@pytest.mark.parametrize(("there", "stored"), [(None, True), (b"content", True), (..., False)])
def test_an_object_that_is_stored_already_is_stored(superlink: _SuperLink, there: Any, stored: bool) -> None:
    objects: Mapping[str, bytes | None] = {} if there is ... else {"o1": there}
    superlink.objects.update(objects)
    client = RepeatableClient(superlink)
    request = PushObjectRequest(node=Node(node_id=1), run_id=7, object_id="o1", object_content=b"content")
    assert client.PushObject(request).stored == stored
    assert client.PushObject(request).stored == stored
    assert client.pulled is superlink.pulled


def _swallowing(call: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        call()


def test_a_client_that_is_told_to_end_fails_in_words() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="told to end"), adapter._failing_when_told_to_end():
        _swallowing(lambda: signal.raise_signal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == before
