"""Admission of clients: what a node may say of its images beside the others, and whose a client's number is.

Nodes say themselves which client they are, and how many images of which classes they have. Neither is taken on trust:
one client that claims 2³⁰ images is nearly all of a mean by images, and one that claims 100,000 classes grows every
message beyond what nodes read.

A node's id is bound to its key by the SuperLink, which takes no word of a node that is not signed by that key. So a
client's number is bound to a node's id: by a list that the operator gives, else by who said it first.
"""

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.formats.json_text import parse_json, shown
from fedpareto.supernet.common.storage.files import read_text, write_recorded
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.flower import FlowerConfig

#: File of a run that holds the node of every client.
NODES = "nodes.json"

#: Clients from which on a median says something of the others.
_ENOUGH = 3

#: Bytes of the class names of all clients, as JSON: a node reads headers of 1 MiB, which hold more than names.
_MOST_NAME_BYTES = 1 << 19

#: Largest id of a node: Flower's are unsigned numbers of 64 bits.
_LARGEST_NODE = (1 << 64) - 1


@dataclasses.dataclass(frozen=True)
class ClientDescription:
    """Description of a client's images by itself; nothing else ever leaves the client except tensors and counts.

    Attributes:
        client: number of the client.
        examples: number of its training images.
        validation: number of images it holds out.
        classes: class names.
        pixels: histogram of each channel of its training images, over the 256 pixel values.
    """

    client: int
    examples: int
    validation: int
    classes: tuple[str, ...]
    pixels: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Plausible:
    """Bounds of what clients may say of their images.

    Attributes:
        examples: most images of one client.
        ratio: the same, in medians of all clients.
        classes: most classes of all clients together.
    """

    examples: int
    ratio: float
    classes: int

    @classmethod
    def of(cls, config: FlowerConfig, settled: int = 0) -> "Plausible":
        """Bounds of a federation, of a run whose ``settled`` classes were there before."""
        return cls(config.max_examples, config.max_ratio, max(config.max_classes, settled))

    def implausible(self, described: Mapping[int, ClientDescription]) -> dict[int, str]:
        """Clients whose words are beyond the bounds beside those of all others, each with the reason in one line."""
        found = {client: reason for client, one in described.items() if (reason := self._too_many(one, described))}
        # Names that are refused count for nobody.
        left = {client: one.classes for client, one in described.items() if client not in found}
        while (reason := self._too_many_names(left)) is not None:
            names = Counter(name for classes in left.values() for name in classes)
            due = {client: _due(classes, names) for client, classes in left.items()}
            odd = max(left, key=lambda client: (due[client], client))
            own = sum(names[name] == 1 for name in left[odd])
            found[odd] = f"it names {counted(len(left.pop(odd)), 'class')}, {own:,} of them its own; {reason}"
        return found

    def _too_many(self, one: ClientDescription, described: Mapping[int, ClientDescription]) -> str | None:
        median = statistics.median(each.examples for each in described.values())
        for what, said in (("training", one.examples), ("held-out", one.validation)):
            claim = f"it says {counted(said, f'{what} image')}"
            if said > self.examples:
                return f"{claim}; at most {self.examples:,} are believed (flower.max_examples)"
            if len(described) >= _ENOUGH and said > self.ratio * median:
                return (
                    f"{claim}, {said / median:,.0f}× the median client's training images; "
                    f"at most {self.ratio:g}× are believed (flower.max_ratio)"
                )
        return None

    def _too_many_names(self, classes: Mapping[int, tuple[str, ...]]) -> str | None:
        names = {name for each in classes.values() for name in each}
        if len(names) > self.classes:
            return f"clients may have {counted(self.classes, 'class')} in all (flower.max_classes)"
        if len(json.dumps(sorted(names))) > _MOST_NAME_BYTES:
            return f"the names of all classes may take {_MOST_NAME_BYTES:,} bytes, or no message would be read"
        return None


def _due(classes: Iterable[str], names: Mapping[str, int]) -> float:
    """Bytes of class names that are due to a client, as JSON: of each its part among the clients that name it.

    So a few that name the same countless classes are as much to blame as one, and whoever has a class that nobody else
    has is not.
    """
    return math.fsum(len(json.dumps(name)) / names[name] for name in classes)


class Bindings:
    """Bindings of clients' numbers to nodes.

    Args:
        listed: node of every client, as the operator has listed them; None where the first node keeps a number.
        source: where they are listed, or kept.
        kept: node of every client that had one earlier in the run.
    """

    def __init__(self, listed: Mapping[int, str] | None, source: str, kept: Mapping[int, str]) -> None:
        self._listed, self._source = listed, source
        self._nodes = dict(kept if listed is None else listed)
        self._file: Path | None = None

    def problem(self, client: int, node: str) -> str | None:
        """Return the reason, in one line, that a node may not be a client; None if it may."""
        owner = self._nodes.get(client)
        if owner == node:
            return None
        if self._listed is not None:
            whose = "nobody's" if owner is None else f"node {owner}'s"
            return f"it says it is client {client}, which by {self._source} is {whose}"
        if owner is not None:
            return (
                f"it says it is client {client}, which is node {owner}'s for the whole run; if that is the wrong one, "
                "list the right one in --flower.clients FILE and resume"
            )
        other = next((number for number, its in self._nodes.items() if its == node), None)
        if other is None:
            return None
        return f"it says it is client {client}, and was client {other} before; a node keeps its number for a run"

    def bind(self, client: int, node: str) -> None:
        """Give a client's number to a node, for the rest of the run."""
        if self._nodes.get(client) != node:
            self._nodes[client] = node
            self._write()

    def keep_in(self, folder: Path) -> None:
        """Keep the bindings in a run's folder from now on, for when the run is resumed.

        Raises:
            UserError: the folder cannot be written.
        """
        if self._listed is None and self._file is None:
            self._file = folder / NODES
            if self._nodes and read_bindings(folder) != self._nodes:
                self._write()

    def _write(self) -> None:
        if self._file is not None:
            write_recorded(self._file, json.dumps(dict(sorted(self._nodes.items())), indent=1) + "\n")


def bindings(config: FlowerConfig, folder: Path | None) -> Bindings | None:
    """Return the bindings of a federation, of the run in ``folder`` if it was begun; None without TLS.

    Without TLS nodes have no keys, and a node that is started again is another one.

    Raises:
        UserError: the list, or what the run has kept, cannot be read.
    """
    if config.clients is not None:
        return Bindings(read_clients(Path(config.clients)), config.clients, {})
    if config.insecure:
        return None
    return Bindings(None, NODES, {} if folder is None else read_bindings(folder))


def read_bindings(folder: Path) -> dict[int, str]:
    """Return the node of every client of a run that had one; none in runs of older programs.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NODES
    if not exists(path):
        return {}
    fields = fields_of(parse_json(read_text(path), str(path)), str(path))
    nodes = {_number(name, str(path)): _node(fields.values[name], str(path)) for name in fields.values}
    _check_single(nodes, str(path))
    return nodes


def read_clients(path: Path) -> dict[int, str]:
    """Return the node of every client by a list of them: a line ``{"client": 3, "node": "1234"}`` each.

    Further fields of a line are for people.

    Raises:
        UserError: a line is malformed, or a client or a node is listed twice.
    """
    nodes: dict[int, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = fields_of(parse_json(line, where), where)
        client, node = fields.whole("client"), _node(fields.values.get("node"), where)
        if client in nodes:
            raise UserError(f"{where}: client {client} is listed twice; leave one line of it")
        nodes[client] = node
    if not nodes:
        raise UserError(f"{path} lists no client; deploy/register-node --clients {path} writes a line for each")
    _check_single(nodes, str(path))
    return nodes


def _check_single(nodes: Mapping[int, str], source: str) -> None:
    node, times = Counter(nodes.values()).most_common(1)[0] if nodes else ("", 1)
    if times > 1:
        raise UserError(f"{source}: node {node} is more than one client; a node is one client")


def _number(text: str, source: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{source}: {shown(text)} is no number of a client")
    return int(text)


def _node(value: object, source: str) -> str:
    text = value if isinstance(value, str) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= _LARGEST_NODE):
        raise UserError(f'{source}: node is {shown(value)}; it must be the id of a SuperNode in quotes, e.g. "1234"')
    return text
