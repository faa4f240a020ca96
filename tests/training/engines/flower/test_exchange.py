"""Questions and answers: their order, their files, deadlines and bytes."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from helpers.runs.flower import (
    EXPIRED,
    NODE_GONE,
    PROCESS_GONE,
    RAISED,
    Error,
    Honest,
    LocalLink,
    Message,
    Reaction,
    lost,
)

from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.exchange import ClientReply, ClientRequest, Exchange, ReplyFailure
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.flower.wire import Request

_REQUEST = Request("evaluate", 30.0, "fp32", {}, {}, (), {}, [])
_NAMES = [f"node-{client}" for client in range(4)]

#: Any answer fits.
_MOST = 1 << 30


@pytest.fixture
def link(tmp_path: Path) -> LocalLink:
    link = LocalLink(tmp_path / "link", 4)
    link.spoil = _echo
    return link


def _echo(message: Message, answer: Callable[[], Honest]) -> Reaction:
    """Answer with the client's number, in the header and as the length of the blob."""
    del answer
    return wire.encode({"client": message.client, "jobs": []}), b"x" * message.client


def _questions(nodes: Sequence[str | None] = _NAMES, most: int = _MOST) -> list[ClientRequest]:
    return [ClientRequest(node, _REQUEST, {"w": torch.full((3,), float(i))}, most) for i, node in enumerate(nodes)]


def _clients(answers: Iterator[ClientReply | ReplyFailure]) -> list[object]:
    return [answer.fields["client"] if isinstance(answer, ClientReply) else answer.kind for answer in answers]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_answers_have_the_order_of_the_questions_whatever_order_they_come_in(
    link: LocalLink, order: tuple[int, ...]
) -> None:
    names = [f"message-{index}" for index in order]
    # One reply a look.
    link.pick = lambda waiting: sorted(waiting, key=names.index)[:1]
    assert _clients(Exchange(link).answers(_questions(), 30.0)) == [0, 1, 2, 3]
    assert link.files() == []


def test_early_answers_wait_as_files_that_are_gone_once_the_next_is_asked_for(link: LocalLink) -> None:
    link.pick = lambda waiting: waiting[::-1]
    answers = Exchange(link).answers(_questions(), 30.0)
    for client in range(4):
        answer = next(answers)
        assert isinstance(answer, ClientReply)
        assert link.files() == [f"reply-message-{index}" for index in range(client, 4)]
        assert answer.blob.read_bytes() == b"x" * client
    assert next(answers, None) is None
    assert link.files() == []


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_a_consumer_that_stops_early_leaves_no_file(link: LocalLink, taken: int) -> None:
    answers = Exchange(link).answers(_questions(), 30.0)
    for _ in range(taken):
        next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert link.files() == []


def test_a_consumer_that_raises_leaves_no_file(link: LocalLink) -> None:
    def merge() -> None:
        for _ in Exchange(link).answers(_questions(), 30.0):
            raise LookupError

    with pytest.raises(LookupError):
        merge()
    assert link.files() == []


def test_every_question_is_sent_before_the_first_answer_is_awaited(link: LocalLink) -> None:
    assert _clients(itertools.islice(Exchange(link).answers(_questions(), 30.0), 1)) == [0]
    assert [message.node for message in link.sent] == _NAMES
    for index, message in enumerate(link.sent):
        assert torch.equal(wire.parse_blob(message.blob)["w"], torch.full((3,), float(index)))
        assert (message.kind, message.deadline, message.asked) == ("query", 30.0, "evaluate")


def test_clients_that_are_not_there_or_have_just_left_are_offline(link: LocalLink) -> None:
    del link.online["node-2"]
    answers = list(Exchange(link).answers(_questions(["node-0", None, "node-2", "node-3"]), 30.0))
    assert [a.kind if isinstance(a, ReplyFailure) else "answer" for a in answers] == [
        "answer",
        "offline",
        "offline",
        "answer",
    ]
    assert [answer.traffic.down > 0 for answer in answers] == [True, False, False, True]
    assert link.files() == []


def test_who_has_not_answered_by_the_deadline_has_failed_and_the_others_have_not(link: LocalLink) -> None:
    link.spoil = lambda message, answer: None if message.client in (1, 2) else _echo(message, answer)
    started = time.monotonic()
    answers = list(Exchange(link).answers(_questions(), 0.2))
    assert 0.2 <= time.monotonic() - started < 5
    assert [a.kind if isinstance(a, ReplyFailure) else "answer" for a in answers] == [
        "answer",
        "timeout",
        "timeout",
        "answer",
    ]
    for answer in answers[1:3]:
        assert isinstance(answer, ReplyFailure)
        assert answer.reason == "no answer within 30 s"
        assert answer.traffic.up == 0
        assert answer.traffic.down == link.sent[1].size
    assert link.files() == []


def test_an_answer_that_comes_with_the_last_look_still_counts(link: LocalLink) -> None:
    assert _clients(Exchange(link).answers(_questions(), 0.0)) == [0, 1, 2, 3]


def test_the_deadline_begins_when_the_last_question_was_sent(link: LocalLink) -> None:
    def slow() -> Iterator[ClientRequest]:
        for question in _questions():
            time.sleep(0.05)
            yield question

    looks = itertools.count()
    link.pick = lambda waiting: waiting if next(looks) else []
    assert _clients(Exchange(link).answers(slow(), 0.1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("code", [RAISED, EXPIRED, NODE_GONE, PROCESS_GONE, 1, 4, 99])
def test_errors_of_flower_are_counted_as_what_they_are(link: LocalLink, code: int) -> None:
    link.spoil = lambda message, answer: Error(code, "a\nb\x1b[2J" + "c" * 9999)
    kinds = {RAISED: "error", EXPIRED: "timeout", NODE_GONE: "lost", PROCESS_GONE: "lost", 4: "lost"}
    for answer in Exchange(link).answers(_questions(), 30.0):
        assert isinstance(answer, ReplyFailure)
        assert answer.kind == kinds.get(code, "error")
        # What Flower says of an error holds words of the client.
        assert answer.reason.startswith("ab[2Jccc")
        assert len(answer.reason) <= 400
        assert answer.reason.isprintable()


def test_an_answer_may_be_as_large_as_it_was_said_and_no_larger(link: LocalLink) -> None:
    size = len(wire.encode({"client": 3, "jobs": []})) + 3
    assert _clients(Exchange(link).answers(_questions(most=size), 30.0)) == [0, 1, 2, 3]
    assert _clients(Exchange(link).answers(_questions(most=size - 1), 30.0)) == [0, 1, 2, "size"]


def test_bytes_are_those_of_header_and_blob_both_ways(link: LocalLink) -> None:
    answers = list(Exchange(link).answers(_questions(), 30.0))
    assert [answer.traffic.down for answer in answers] == [message.size for message in link.sent]
    assert [answer.traffic.up for answer in answers] == [link.bytes_up[message.name] for message in link.sent]
    assert [answer.traffic.up - answers[0].traffic.up for answer in answers] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("header", "kind"), [(b"x" * (wire.MOST_HEADER_BYTES + 1), "malformed"), (b"[]", "malformed"), (b"{", "malformed")]
)
def test_bytes_of_an_unreadable_answer_count_and_its_file_is_removed(link: LocalLink, header: bytes, kind: str) -> None:
    link.spoil = lambda message, answer: (header, b"yz")
    (answer,) = Exchange(link).answers(_questions(["node-0"]), 30.0)
    assert isinstance(answer, ReplyFailure)
    assert (answer.kind, answer.traffic.down, answer.traffic.up) == (kind, link.sent[0].size, len(header) + 2)
    assert link.files() == []


@pytest.mark.parametrize(
    ("words", "kind", "counted"),
    [
        ("no", "memory", "memory"),
        ("no", "timeout", "timeout"),
        ("no", "a new kind", "refused"),
        ("no", ["memory"], "refused"),
        ("no", None, "refused"),
        (None, "version", "version"),
        ({"a": ["\x1b"] * 10**5}, "refused", "refused"),
        ("\x1b]0;title\x07\r\n" + "long " * 200_000, "error", "error"),
    ],
    ids=range(8),
)
def test_a_refusal_is_one_short_line_of_a_known_kind(
    link: LocalLink, words: object, kind: object, counted: str
) -> None:
    link.spoil = lambda message, answer: (wire.encode({"refused": words, "kind": kind}), b"left over")
    (answer,) = Exchange(link).answers(_questions(["node-0"]), 30.0)
    assert isinstance(answer, ReplyFailure)
    assert answer.kind == counted
    assert answer.reason.isprintable()
    assert 0 < len(answer.reason) <= 400
    assert link.files() == []


def test_a_line_lost_while_answers_are_awaited_fails_those_that_are_missing(link: LocalLink) -> None:
    looks = itertools.count()
    link.pick = lambda waiting: waiting[:2]

    def before(what: str) -> None:
        if what == "collect" and next(looks):
            raise LineLost("killed")

    link.before = before
    answers = list(Exchange(link).answers(_questions(), 30.0))
    assert [a.kind if isinstance(a, ReplyFailure) else "answer" for a in answers] == [
        "answer",
        "answer",
        "lost",
        "lost",
    ]
    for answer, message in zip(answers, link.sent, strict=True):
        assert answer.traffic.down == message.size
    assert isinstance(answers[3], ReplyFailure)
    assert answers[3].reason == "the SuperLink is gone (killed)"
    assert link.files() == []


def test_a_line_lost_while_questions_are_sent_fails_all_of_them_at_once(link: LocalLink) -> None:
    asked: list[str] = []

    def before(what: str) -> None:
        asked.append(what)
        if len(asked) == 3:
            raise LineLost("killed")

    link.before = before
    answers = list(Exchange(link).answers(_questions(), 30.0))
    # Another line would be another run, to which the first two messages mean nothing.
    assert [a.kind if isinstance(a, ReplyFailure) else "answer" for a in answers] == ["lost"] * 4
    assert asked == ["send"] * 3
    assert [answer.traffic.down for answer in answers] == [*(message.size for message in link.sent), 0, 0]
    assert link.files() == []


def test_questions_after_a_lost_line_are_asked_on_the_next(link: LocalLink) -> None:
    exchange = Exchange(link)
    link.before = lost("send")
    assert _clients(exchange.answers(_questions(), 30.0)) == ["lost"] * 4
    link.before = lambda what: None
    assert _clients(exchange.answers(_questions(), 30.0)) == [0, 1, 2, 3]
