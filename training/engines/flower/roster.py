"""Roster of a federation: the connected nodes, each with the client that it is and its description of its images."""

import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.formats.json_text import shown
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.flower import MOST_CLASSES, MOST_IMAGES
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.admission import Bindings, ClientDescription, Plausible
from fedpareto.training.engines.flower.exchange import ClientReply, ClientRequest, Exchange, ReplyFailure, read_reply
from fedpareto.training.engines.flower.superlink import Link
from fedpareto.training.engines.flower.wire import Request, WireError

#: Bytes of a description: class names take most of it.
_MOST_BYTES = 1 << 22

#: Characters of a class name; a folder's has no more.
_LONGEST_NAME = 255

#: Seconds between the first two questions to a node that fails, and between any two.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

#: Seconds after which a question that has no answer is asked once more: a node that is restarted loses what it was
#: asked, and Flower says so only when the message's time to live has passed.
_RENEWAL = 90.0


class Roster:
    """Roster of nodes; a node that missed an answer is asked for its description again before it is given work.

    Args:
        link: link that lists the nodes.
        exchange: exchange of messages with them.
        question: request for a description.
        clients: number of clients of the run.
        say: function that is told of nodes that cannot take part, once each.
        plausible: bounds of what clients may say of their images, beside the others.
        bindings: whose each client's number is; None where whoever is there first has it.
        clock: function that returns seconds; by them a node that keeps failing is left alone for ever longer times.
    """

    def __init__(
        self,
        link: Link,
        exchange: Exchange,
        question: Request,
        clients: int,
        say: Callable[[str], None],
        plausible: Plausible,
        bindings: Bindings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link, self._exchange, self._question, self._clients, self._say = link, exchange, question, clients, say
        # The node of every open question by its name, and when it was asked.
        self._asked: dict[str, tuple[str, float]] = {}
        self._node_of: dict[int, str] = {}
        self._silent: set[str] = set()
        # Nodes that are left out, with the node in whose place they would be.
        self._second: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._shape = question.space["resolutions"][-1], question.space["in_channels"]
        # How long a node that failed is left alone, and until when: each question starts a process there.
        self._clock = clock
        self._plausible, self._bindings = plausible, bindings
        #: All that clients have said of their images, and the clients that nobody can believe beside the others.
        self._said: dict[int, ClientDescription] = {}
        self._odd: Mapping[int, str] = {}
        self._pauses: dict[str, float] = {}
        self._rest: dict[str, float] = {}

    @property
    def described(self) -> Mapping[int, ClientDescription]:
        """The newest description of every client that was ever there and is believed."""
        return {client: said for client, said in self._said.items() if client not in self._odd}

    def refresh(self) -> Mapping[int, str]:
        """Return the node of every client that is connected now; new nodes and silent ones are asked for a description.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        online = set(self._link.nodes())
        self._silent &= online
        self._node_of = {client: node for client, node in self._node_of.items() if node in online}
        self._told = {node: reason for node, reason in self._told.items() if node in online}
        self._rest = {node: until for node, until in self._rest.items() if node in online}
        self._listen(online)
        known, now = self._known(), self._clock()
        self._second = {node: other for node, other in self._second.items() if node in online and other in known}
        resting = {node for node, until in self._rest.items() if until > now}
        waiting = {node for node, asked in self._asked.values() if now - asked < _RENEWAL}
        for node in sorted(online - known - resting - waiting - self._second.keys()):
            name, _ = self._exchange.send(ClientRequest(node, self._question, {}, _MOST_BYTES))
            if name is not None:
                self._asked[name] = node, now
        return {
            client: node
            for client, node in self._node_of.items()
            if node not in self._silent and client not in self._odd
        }

    def wait(self) -> None:
        """Wait a moment before the next look for clients that are missing."""
        self._link.wait()

    def suspect(self, client: int) -> None:
        """Give a client no work until it has described its images again."""
        if client in self._node_of:
            self._silent.add(self._node_of[client])

    def keep_in(self, folder: Path) -> None:
        """Keep whose the clients' numbers are in a run's folder, for when the run is resumed.

        Raises:
            UserError: the folder cannot be written.
        """
        if self._bindings is not None:
            self._bindings.keep_in(folder)

    def forget_questions(self) -> None:
        """Forget all open questions, which were lost with the SuperLink's run, so that they are asked again."""
        self._asked.clear()

    def _listen(self, online: Set[str]) -> None:
        if not self._asked:
            return
        for name, reply in self._link.collect(dict.fromkeys(self._asked, _MOST_BYTES)).items():
            node, _ = self._asked.pop(name)
            answer = read_reply(reply)
            if isinstance(answer, ClientReply):
                answer.blob.unlink(missing_ok=True)
            if node not in online:
                continue
            if isinstance(answer, ReplyFailure):
                # A node that has answered a later question is there.
                if node not in self._known():
                    self._leave_alone(node, _LONGEST_PAUSE if answer.kind in ("refused", "version") else _PAUSE)
                    self._tell(node, answer.reason)
                continue
            try:
                self._welcome(node, self._read(answer))
            except WireError as error:
                self._leave_alone(node, _LONGEST_PAUSE)
                self._tell(node, str(error))

    def _read(self, answer: ClientReply) -> ClientDescription:
        return read_description(answer, self._clients, *self._shape, measured=not self._question.normalisation)

    def _welcome(self, node: str, description: ClientDescription) -> None:
        client = description.client
        problem = None if self._bindings is None else self._bindings.problem(client, node)
        if problem is not None:
            self._leave_alone(node, _LONGEST_PAUSE)
            self._tell(node, problem)
            return
        other = self._node_of.get(client)
        if other is not None and other != node and other not in self._silent:
            # A node that was restarted has another name, and Flower lists the old one for another minute.
            self._second[node] = other
            self._tell(node, f"it is client {client}, as node {other} is; give each node a partition-id of its own")
            return
        self._node_of = {one: its for one, its in self._node_of.items() if its != node} | {client: node}
        if self._bindings is not None:
            self._bindings.bind(client, node)
        self._said[client] = description
        self._silent.discard(node)
        for notes in (self._told, self._pauses, self._rest):
            notes.pop(node, None)
        self._weigh_words()

    def _weigh_words(self) -> None:
        """Leave out the clients whose words are not believed beside those of the others, until they are."""
        before, self._odd = self._odd, self._plausible.implausible(self._said)
        for client, reason in self._odd.items():
            # The numbers in the reason change with every client that comes.
            if client in self._node_of and client not in before:
                self._tell(self._node_of[client], reason)

    def _known(self) -> Set[str]:
        """Return the nodes that have described their images and have not fallen silent since."""
        return {node for node in self._node_of.values() if node not in self._silent}

    def _leave_alone(self, node: str, first: float) -> None:
        """Leave a failing node alone for ``first`` seconds before it is asked again; each later failure doubles it."""
        self._pauses[node] = min(_LONGEST_PAUSE, 2 * self._pauses.get(node, first / 2))
        self._rest[node] = self._clock() + self._pauses[node]

    def _tell(self, node: str, reason: str) -> None:
        """Tell the user why a node is left out, once."""
        if self._told.get(node) != reason:
            self._told[node] = reason
            self._say(f"node {node} takes no part: {reason}")


def read_description(
    answer: ClientReply, clients: int, side: int, channels: int, *, measured: bool = True
) -> ClientDescription:
    """Return a client's description of its images, squares of ``side`` pixels in ``channels``.

    Without ``measured`` their pixels were not asked for, and are not looked at.

    Raises:
        WireError: a field is missing or absurd.
    """
    fields = answer.fields
    examples = wire.integer(fields, "examples", 1, MOST_IMAGES)
    return ClientDescription(
        client=wire.integer(fields, "client", 0, clients - 1),
        examples=examples,
        validation=wire.integer(fields, "validation", 0, MOST_IMAGES),
        classes=_class_names(fields),
        pixels=_histograms(fields, channels, examples * side**2) if measured else (),
    )


def _class_names(fields: Mapping[str, Any]) -> tuple[str, ...]:
    names = wire.texts(fields, "classes", MOST_CLASSES)
    fine = all(name.isprintable() and len(name) <= _LONGEST_NAME for name in names)
    if not names or not fine or len(set(names)) != len(names):
        raise WireError(f"classes are {shown(list(names))}; they must be different names of printable characters")
    return names


def _histograms(fields: Mapping[str, Any], channels: int, values: int) -> tuple[tuple[int, ...], ...]:
    """Return the histogram of each channel, over the 256 pixel values; each sums up to ``values``."""
    pixels = fields.get("pixels")
    if not isinstance(pixels, list) or len(pixels) != channels:
        raise WireError(f"pixels must hold the histograms of {counted(channels, 'channel')}")
    for counts in pixels:
        fine = isinstance(counts, list) and len(counts) == 256
        if not fine or not all(type(count) is int and count >= 0 for count in counts):
            raise WireError("pixels must hold 256 counts a channel")
        if sum(counts) != values:
            # One client's lie would move the normalisation of all.
            raise WireError(f"pixels must count the {counted(values, 'value')} that a channel of its images has")
    return tuple(tuple(counts) for counts in pixels)
