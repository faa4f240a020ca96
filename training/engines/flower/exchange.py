"""Exchange of messages with clients: all requests are sent at once, and answers are taken in order until a deadline."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from fedpareto.supernet.common.formats.json_text import shown
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.relay_socket import GONE, MALFORMED, TOO_LARGE, LineLost, Reply
from fedpareto.training.engines.flower.superlink import Link, MessageType
from fedpareto.training.engines.flower.wire import Request, WireError
from fedpareto.training.messages import FailureKind
from fedpareto.training.traffic import NO_TRAFFIC, Traffic

#: What Flower's error codes are counted as; all others are errors of the client's code.
_KINDS: Mapping[int, FailureKind] = {
    3: "timeout",  # the message's time to live has passed
    4: "lost",  # the reply is gone
    5: "lost",  # the node is gone
    8: "lost",  # the client's process is gone
    MALFORMED: "malformed",
    TOO_LARGE: "size",
    GONE: "lost",
}


@dataclasses.dataclass(frozen=True)
class ClientReply:
    """Answer of a client, with its header read and its blob still in a file.

    Attributes:
        fields: fields of the header.
        blob: file of its tensors, removed once the next answer is asked for.
        arrived: time of its arrival, in seconds of the server's monotonic clock.
        seconds: seconds from the question to the answer.
        traffic: bytes of the question and the answer.
    """

    fields: Mapping[str, Any]
    blob: Path
    arrived: float
    seconds: float
    traffic: Traffic

    @property
    def jobs(self) -> Sequence[Mapping[str, Any]]:
        """Fields of every job's result.

        Raises:
            WireError: there are no such fields.
        """
        jobs = self.fields.get("jobs")
        if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
            raise WireError("no list of results")
        return jobs


@dataclasses.dataclass(frozen=True)
class ReplyFailure:
    """Failure to get an answer, with the reason."""

    kind: FailureKind
    reason: str
    traffic: Traffic = NO_TRAFFIC


@dataclasses.dataclass(frozen=True)
class ClientRequest:
    """Request to one client.

    Attributes:
        node: the client's node; None if it is not connected.
        request: the header.
        tensors: tensors of the blob.
        most: bytes of the largest possible answer.
    """

    node: str | None
    request: Request
    tensors: Mapping[str, Tensor]
    most: int


@dataclasses.dataclass(frozen=True)
class _Sent:
    name: str
    question: ClientRequest
    traffic: Traffic
    started: float


class Exchange:
    """Exchange of requests and answers with clients through a link.

    Args:
        link: link that carries the messages.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._count = link, 0

    def answers(self, questions: Iterable[ClientRequest], deadline: float) -> Iterator[ClientReply | ReplyFailure]:
        """Send every question, then yield one answer each, in the order of the questions.

        An answer is yielded once it and all before it have come or failed. All answers that are missing ``deadline``
        seconds after the last question was sent have failed. Answers that came early wait as files.
        """
        sent = self._sent_all(questions)
        open_ = {one.name: one for one in sent if isinstance(one, _Sent)}
        done: dict[str, ClientReply | ReplyFailure] = {}
        end = time.monotonic() + deadline
        try:
            for one in sent:
                if isinstance(one, ReplyFailure):
                    yield one
                    continue
                while one.name not in done:
                    waiting = {name: other for name, other in open_.items() if name not in done}
                    done |= self._collected(waiting, late=time.monotonic() > end)
                    if one.name not in done:
                        self._link.wait()
                yield done[one.name]
                # Nobody needs it any more once the next one is asked for.
                _remove(done[one.name])
                done[one.name] = ReplyFailure("lost", "already taken")
        finally:
            # Whoever stops early leaves answers that nobody has read.
            for answer in done.values():
                _remove(answer)

    def send(self, question: ClientRequest) -> tuple[str | None, int]:
        """Send a question; return its name, which is None if the node is gone, and its bytes.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        header, blob, size = wire.encode(question.request), None, 0
        if question.tensors:
            self._count += 1
            blob = f"task-{self._count}"
            dtype = wire.TORCH_DTYPES[question.request.wire_dtype] if question.request.kind == "train" else None
            size = wire.write_blob(self._link.folder / blob, question.tensors, dtype)
        kind: MessageType = "train" if question.request.kind == "train" else "query"
        try:
            name = self._link.send(question.node or "", kind, header, blob, question.request.deadline)
        finally:
            if blob is not None:
                (self._link.folder / blob).unlink(missing_ok=True)
        return name, len(header) + size

    def _sent_all(self, questions: Iterable[ClientRequest]) -> list[_Sent | ReplyFailure]:
        """Send every question; if the line is lost on the way all are lost, as a new line is a new run of Flower's."""
        sent: list[_Sent | ReplyFailure] = []
        lost = ""
        for question in questions:
            try:
                sent.append(ReplyFailure("lost", lost) if lost else self._sent(question))
            except LineLost as error:
                lost = f"the SuperLink is gone ({error})"
                sent.append(ReplyFailure("lost", lost))
        if not lost:
            return sent
        return [ReplyFailure("lost", lost, one.traffic) if isinstance(one, _Sent) else one for one in sent]

    def _sent(self, question: ClientRequest) -> _Sent | ReplyFailure:
        if question.node is None:
            return ReplyFailure("offline", "it is not connected")
        started = time.monotonic()
        name, size = self.send(question)
        if name is None:
            return ReplyFailure("offline", "its node has just left")
        return _Sent(name, question, Traffic(down=size), started)

    def _collected(self, waiting: Mapping[str, _Sent], *, late: bool) -> dict[str, ClientReply | ReplyFailure]:
        try:
            replies = self._link.collect({name: one.question.most for name, one in waiting.items()})
        except LineLost as error:
            reason = f"the SuperLink is gone ({error})"
            return {name: ReplyFailure("lost", reason, one.traffic) for name, one in waiting.items()}
        done = {
            name: read_reply(reply, waiting[name].traffic, waiting[name].started) for name, reply in replies.items()
        }
        if late:
            for name in waiting.keys() - done.keys():
                seconds = waiting[name].question.request.deadline
                done[name] = ReplyFailure("timeout", f"no answer within {seconds:g} s", waiting[name].traffic)
        return done


def _remove(answer: ClientReply | ReplyFailure) -> None:
    if isinstance(answer, ClientReply):
        answer.blob.unlink(missing_ok=True)


def read_reply(reply: Reply, question: Traffic = NO_TRAFFIC, started: float = 0.0) -> ClientReply | ReplyFailure:
    """Return a reply with its header read and checked; the ``question`` was sent at the moment ``started``."""
    if reply.error is not None or reply.blob is None:
        kind = _KINDS.get(reply.error or 0, "error")
        return ReplyFailure(kind, wire.one_line(reply.reason) or "an empty reply", question)
    traffic = question + Traffic(up=len(reply.header) + reply.blob.stat().st_size)
    try:
        fields = wire.decode(reply.header)
    except WireError as error:
        reply.blob.unlink(missing_ok=True)
        return ReplyFailure("malformed", str(error), traffic)
    if "refused" in fields:
        reply.blob.unlink(missing_ok=True)
        refusal: FailureKind = fields["kind"] if fields.get("kind") in get_args(FailureKind) else "refused"
        words = fields["refused"]
        reason = wire.one_line(words if isinstance(words, str) else shown(words)) or "it refuses, and says no reason"
        return ReplyFailure(refusal, reason, traffic)
    now = time.monotonic()
    return ClientReply(fields, reply.blob, now, now - started, traffic)
