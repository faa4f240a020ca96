"""A federation over a link that is all in memory: nodes answer in this process, and tests may spoil what they say."""

import dataclasses
import functools
import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data import run_images
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.sources import SplitName, list_images
from fedpareto.training.engines.flower import node, wire
from fedpareto.training.engines.flower.engine import FlowerEngine
from fedpareto.training.engines.flower.relay_socket import TOO_LARGE, LineLost, Reply
from fedpareto.training.engines.flower.superlink import Link, MessageType
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.setup import assemble, new_run
from helpers.runs.federation import micro_config
from helpers.runs.simulation import Recorder

#: Flower's own codes: the client's code raised, no answer in time, the node is gone, the client's process is gone.
RAISED, EXPIRED, NODE_GONE, PROCESS_GONE = 2, 3, 5, 8

Honest = tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True)
class Message:
    """A message to a node, as it crossed the link."""

    name: str
    node: str
    client: int
    kind: MessageType
    header: bytes
    blob: bytes
    deadline: float

    @property
    def fields(self) -> dict[str, Any]:
        return wire.decode(self.header)

    @property
    def asked(self) -> str:
        """What kind of jobs it holds."""
        kind: str = self.fields["kind"]
        return kind

    @property
    def size(self) -> int:
        return len(self.header) + len(self.blob)


@dataclasses.dataclass(frozen=True)
class Error:
    """What Flower itself answers in place of a node."""

    code: int
    reason: str = "so says Flower"


#: What comes back in place of the honest answer; None: nothing ever.
Reaction = Honest | Error | None
Spoil = Callable[[Message, Callable[[], Honest]], Reaction]


def honest(message: Message, answer: Callable[[], Honest]) -> Reaction:
    del message
    return answer()


@functools.lru_cache(maxsize=512)
def _remembered(header: bytes, blob: bytes, config: tuple[tuple[str, Any], ...]) -> Honest:
    return node.answer(header, blob, dict(config))


class LocalLink:
    """A link whose nodes answer when their replies are collected, in the order of the messages.

    What a node says depends on nothing but the message, its settings and the session's kept images: equal questions
    are answered once.

    Args:
        folder: of the blobs; it is made.
        clients: one node each at first, named ``node-CLIENT``.
    """

    def __init__(self, folder: Path, clients: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        #: The settings of every connected node.
        self.online: dict[str, dict[str, Any]] = {f"node-{client}": config_of(client) for client in range(clients)}
        #: Decides what comes back for a message.
        self.spoil: Spoil = honest
        #: Picks which of the waiting messages are answered by one collection, and in what order.
        self.pick: Callable[[Sequence[str]], Sequence[str]] = list
        #: Called first by whatever is asked of the link; may raise ``LineLost``.
        self.before: Callable[[str], None] = lambda what: None
        self.sent: list[Message] = []
        self.bytes_up: dict[str, int] = {}
        self._open: dict[str, Message] = {}

    def nodes(self) -> Sequence[str]:
        self.before("nodes")
        return list(self.online)

    def send(self, node: str, kind: MessageType, header: bytes, blob: str | None, deadline: float) -> str | None:
        self.before("send")
        if node not in self.online:
            return None
        # As Flower does, which keeps them elsewhere.
        content = b"" if blob is None else (self.folder / blob).read_bytes()
        client = self.online[node]["partition-id"]
        message = Message(f"message-{len(self.sent)}", node, client, kind, header, content, deadline)
        self.sent.append(message)
        self._open[message.name] = message
        return message.name

    def collect(self, messages: Mapping[str, int]) -> Mapping[str, Reply]:
        self.before("collect")
        replies: dict[str, Reply] = {}
        for name in self.pick([name for name in messages if name in self._open]):
            message = self._open[name]
            if message.node not in self.online:
                reaction: Reaction = Error(NODE_GONE, "the node is gone")
            else:
                reaction = self.spoil(message, functools.partial(self._answer, message))
            if reaction is None:
                continue
            del self._open[name]
            replies[name] = self._reply(name, reaction, messages[name])
        return replies

    def wait(self) -> None:
        # Whoever waits for a deadline looks often.
        time.sleep(0.001)

    def asked(self, kind: str) -> list[Message]:
        """Return the messages of a kind that were sent."""
        return [message for message in self.sent if message.asked == kind]

    def files(self) -> list[str]:
        """Return what lies in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def _answer(self, message: Message) -> Honest:
        config = self.online[message.node]
        return _remembered(message.header, message.blob, tuple(sorted(config.items())))

    def _reply(self, name: str, reaction: Honest | Error, most: int) -> Reply:
        if isinstance(reaction, Error):
            return Reply(b"", None, reaction.code, reaction.reason)
        header, blob = reaction
        if len(header) + len(blob) > most:
            return Reply(b"", None, TOO_LARGE, "larger than any answer to this message")
        self.bytes_up[name] = len(header) + len(blob)
        path = self.folder / f"reply-{name}"
        path.write_bytes(blob)
        return Reply(header, path)


def config_of(client: int) -> dict[str, Any]:
    """Return the settings of the node of a client."""
    return {"partition-id": client, "device": "cpu"}


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes read settings and digits once."""
    monkeypatch.setattr(node, "from_mapping", _parsed)
    monkeypatch.setattr(run_images, "list_images", _listed)


def _parsed(cls: type[RunConfig], mapping: Mapping[str, Any], source: str) -> RunConfig:
    del cls
    return _parsed_text(json.dumps(mapping), source)


def _listed(name: str, root: str, split: SplitName, **rest: Any) -> Listing:
    del rest
    return _listed_once(name, root, split)


@functools.cache
def _listed_once(name: str, root: str, split: SplitName) -> Listing:
    return list_images(name, root, split)


@functools.cache
def _parsed_text(text: str, source: str) -> RunConfig:
    return from_mapping(RunConfig, json.loads(text), source)


def flower_config(folder: Path, **changes: Any) -> RunConfig:
    """Return a run of one round in which all of four clients train, on the digits."""
    return micro_config(
        folder,
        **{
            "rounds": 1,
            "engine": "flower",
            "clients": ClientsConfig(count=4, per_round=4),
            # Few images to train with: five steps a client.
            "data": DataConfig(name="digits", validation=0.8),
            "partition": PartitionConfig(scheme="iid"),
            "evaluation": EvaluationConfig(every=10, probes=2, calibration_images=64, batch_size=64),
            "checkpoint": CheckpointConfig(every=1, keep=2),
            "flower": FlowerConfig(insecure=True, patience=60.0, deadline=60.0, retries=0),
            **changes,
        },
    )


def prepared_run(config: RunConfig, link: Link | None) -> tuple[Run, RunState, Models]:
    """Return a run of a configuration as the command makes it, and what it starts with."""
    if link is None:
        # The same run as a simulation, which reads nothing of Flower's.
        config = dataclasses.replace(config, flower=RunConfig().flower)
    prepared = new_run(config, SILENT, link)
    start = prepared.checkpoint
    run = assemble(prepared, Recorder(), lambda: False)
    return run, start.state, start.models


def trained(config: RunConfig, link: Link | None) -> tuple[Run, RunState, Tensors]:
    """Train a run of a configuration; return it with its last state and tensors."""
    run, state, models = prepared_run(config, link)
    return run, train(run, state, models), models.supernet


def engine_of(run: Run) -> FlowerEngine:
    assert isinstance(run.engine, FlowerEngine)
    return run.engine


def only(client: int, kind: str, reaction: Spoil) -> Spoil:
    """Return a spoil of one client's answers to one kind of message; all others are honest."""

    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        if message.client == client and message.asked == kind:
            return reaction(message, answer)
        return answer()

    return spoil


def edited(
    fields: Callable[[dict[str, Any]], object] = lambda fields: None,
    tensors: Callable[[Tensors], object] = lambda tensors: None,
) -> Spoil:
    """Return a spoil that edits the fields and the tensors of the honest answer in place."""

    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        del message
        header, blob = answer()
        spoiled, own = wire.decode(header), wire.parse_blob(blob) if blob else {}
        fields(spoiled)
        tensors(own)
        # As a client that is not ours may write it, NaN included.
        return json.dumps(spoiled).encode(), wire.make_blob(own) if own else b""

    return spoil


def raw_blob(entries: Mapping[str, tuple[str, Sequence[int], Sequence[int]]], data: bytes = b"") -> bytes:
    """Return a safetensors file whose header says whatever it is told: dtype, shape and offsets by name."""
    header = json.dumps(
        {name: {"dtype": kind, "shape": shape, "data_offsets": at} for name, (kind, shape, at) in entries.items()}
    ).encode()
    return struct.pack("<Q", len(header)) + header + data


def lost(what: str) -> Callable[[str], None]:
    """Return a ``before`` that loses the line whenever ``what`` is asked."""

    def before(asked: str) -> None:
        if asked == what:
            raise LineLost("the SuperLink was killed")

    return before
