"""Who is there: nodes that have said which client they are, and what images they hold."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from training.data.images import DataError
from training.flower import wire
from training.flower.exchange import Answer, Exchange, Question, Trouble, read_reply
from training.flower.link import Link
from training.flower.wire import Request, WireError

#: Images a client may claim to hold, and classes they may have: bounds on nonsense, not on federations.
MOST_IMAGES, MOST_CLASSES = 1 << 30, 100_000

#: Bytes of a description: class names take most of it.
_MOST_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Description:
    """What a client says of its images; the only thing that ever leaves it beside tensors and counts.

    Attributes:
        client: its number.
        examples: images it trains with.
        validation: images it holds out.
        classes: class names.
        pixels: for each channel, how many pixels of its training images have each of the 256 values.
    """

    client: int
    examples: int
    validation: int
    classes: tuple[str, ...]
    pixels: tuple[tuple[int, ...], ...]


class Roster:
    """Keeps track of nodes; a node that missed an answer is asked to speak again before it is given work.

    Args:
        link: lists the nodes.
        exchange: asks them.
        question: makes the request for a description.
        clients: clients of the run.
        say: is told of nodes that cannot take part, once each.
    """

    def __init__(
        self, link: Link, exchange: Exchange, question: Request, clients: int, say: Callable[[str], None]
    ) -> None:
        self._link, self._exchange, self._question, self._clients, self._say = link, exchange, question, clients, say
        self._asked: dict[str, str] = {}
        self._node_of: dict[int, str] = {}
        self._silent: set[str] = set()
        self._refused: set[str] = set()
        #: The newest description of every client that was ever there.
        self.described: dict[int, Description] = {}

    def look(self) -> Mapping[int, str]:
        """Return the node of every client that is there now; new nodes and silent ones are asked to speak.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        online = set(self._link.nodes())
        self._refused &= online
        self._silent &= online
        self._listen()
        self._node_of = {client: node for client, node in self._node_of.items() if node in online}
        known = {node for node in self._node_of.values() if node not in self._silent}
        for node in sorted(online - known - self._refused - set(self._asked.values())):
            name, _ = self._exchange.send(Question(node, self._question, {}, _MOST_BYTES))
            if name is not None:
                self._asked[name] = node
        return {client: node for client, node in self._node_of.items() if node not in self._silent}

    def doubt(self, client: int) -> None:
        """Give a client no work until it has spoken again."""
        if client in self._node_of:
            self._silent.add(self._node_of[client])

    def forget_questions(self) -> None:
        """Ask again: the questions were lost with the SuperLink's run."""
        self._asked.clear()

    def _listen(self) -> None:
        if not self._asked:
            return
        for name, reply in self._link.collect(dict.fromkeys(self._asked, _MOST_BYTES)).items():
            node = self._asked.pop(name)
            answer = read_reply(reply)
            if isinstance(answer, Trouble):
                self._note(node, answer.reason, for_good=answer.kind in ("refused", "version"))
                continue
            answer.blob.unlink(missing_ok=True)
            try:
                self._welcome(node, read_description(answer, self._clients))
            except (WireError, DataError) as error:
                self._note(node, str(error), for_good=True)

    def _welcome(self, node: str, description: Description) -> None:
        client = description.client
        other = self._node_of.get(client)
        if other is not None and other != node:
            raise WireError(f"it is client {client}, as node {other} is; give each node a partition-id of its own")
        self._node_of[client] = node
        self.described[client] = description
        self._silent.discard(node)

    def _note(self, node: str, reason: str, *, for_good: bool) -> None:
        """Leave a node out, until it joins anew if its answer cannot change."""
        if for_good:
            self._refused.add(node)
        self._say(f"node {node} takes no part: {reason}")


def read_description(answer: Answer, clients: int) -> Description:
    """Return what a client says of its images.

    Raises:
        WireError: a field is missing or absurd.
    """
    fields = answer.fields
    return Description(
        client=wire.integer(fields, "client", 0, clients - 1),
        examples=wire.integer(fields, "examples", 1, MOST_IMAGES),
        validation=wire.integer(fields, "validation", 0, MOST_IMAGES),
        classes=wire.texts(fields, "classes", MOST_CLASSES),
        pixels=_histograms(fields),
    )


def _histograms(fields: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    pixels = fields.get("pixels")
    if not isinstance(pixels, list) or len(pixels) != 3:
        raise WireError("pixels must hold the histograms of three channels")
    for counts in pixels:
        fine = isinstance(counts, list) and len(counts) == 256
        if not fine or not all(type(count) is int and 0 <= count < 1 << 53 for count in counts) or not any(counts):
            raise WireError("pixels must hold 256 counts a channel")
    return tuple(tuple(counts) for counts in pixels)
