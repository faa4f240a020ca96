"""Who is there: nodes that join, fall silent, leave and come back, and what they may say of themselves."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.flower import EXPIRED, NODE_GONE, RAISED, Error, Honest, LocalLink, Message, Reaction, config_of, lost

from fedpareto.training.config.flower import MOST_IMAGES, FlowerConfig
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.admission import Bindings, Plausible
from fedpareto.training.engines.flower.exchange import Exchange
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.flower.roster import Roster
from fedpareto.training.engines.flower.wire import Request

PLAUSIBLE = Plausible.of(FlowerConfig())

#: Three clients of 10 images of 8×8 pixels.
_EXAMPLES, _SIDE = 10, 8


def _pixels(counted: int = _EXAMPLES * _SIDE**2) -> list[list[int]]:
    return [[counted - channel, *[0] * 254, channel] for channel in range(3)]


def _description(client: int) -> dict[str, Any]:
    return {
        "client": client, "examples": _EXAMPLES, "validation": 2, "classes": ["a", "b"], "pixels": _pixels(),
        "protocol": wire.PROTOCOL,
    }  # fmt: skip


class _Nodes:
    """Nodes behind a link that say what a test tells them, a roster, and what the user was told."""

    def __init__(self, folder: Path, bindings: Bindings | None = None) -> None:
        self.link = LocalLink(folder / "link", 3)
        self.link.spoil = self._say
        self.said: dict[str, Reaction] = {}
        self.told: list[str] = []
        self.now, self.a_look = 0.0, 1000.0
        question = Request("describe", 30.0, "fp32", {}, {"resolutions": [_SIDE], "in_channels": 3}, (), {}, [])
        self.roster = Roster(
            self.link, Exchange(self.link), question, 3, self.told.append, PLAUSIBLE, bindings, self._clock
        )

    def _clock(self) -> float:
        return self.now

    def refresh(self) -> dict[int, str]:
        """Look twice: questions go out with one look, answers come in with the next."""
        self.now += self.a_look
        self.roster.refresh()
        return dict(self.roster.refresh())

    def questions(self) -> list[str]:
        return [message.node for message in self.link.sent]

    def join(self, name: str, client: int) -> None:
        self.link.online[name] = config_of(client)

    def say(self, name: str, **changes: Any) -> None:
        """Let a node describe itself otherwise; a field of ``...`` is left out."""
        fields = {**_description(self.link.online[name]["partition-id"]), **changes}
        self.said[name] = wire.encode({key: value for key, value in fields.items() if value is not ...}), b"odd bytes"

    def _say(self, message: Message, answer: Callable[[], Honest]) -> Reaction:
        del answer
        if message.node in self.said:
            return self.said[message.node]
        return wire.encode(_description(message.client)), b""


@pytest.fixture
def nodes(tmp_path: Path) -> _Nodes:
    return _Nodes(tmp_path)


def test_nodes_are_asked_once_and_are_there_when_they_have_spoken(nodes: _Nodes) -> None:
    assert dict(nodes.roster.refresh()) == {}
    there = {0: "node-0", 1: "node-1", 2: "node-2"}
    for _ in range(3):
        assert dict(nodes.roster.refresh()) == there
    assert nodes.questions() == ["node-0", "node-1", "node-2"]
    assert nodes.told == []
    described = nodes.roster.described[1]
    assert (described.client, described.examples, described.validation, described.classes) == (1, 10, 2, ("a", "b"))
    assert [list(counts) for counts in described.pixels] == _pixels()


def test_a_node_that_joins_late_is_there_after_it_has_spoken(nodes: _Nodes) -> None:
    late = nodes.link.online.pop("node-1")
    assert nodes.refresh() == {0: "node-0", 2: "node-2"}
    nodes.link.online["node-1"] = late
    assert dict(nodes.roster.refresh()) == {0: "node-0", 2: "node-2"}
    assert dict(nodes.roster.refresh()) == {0: "node-0", 1: "node-1", 2: "node-2"}


def test_a_node_that_leaves_is_gone_at_once_and_comes_back_after_it_has_spoken(nodes: _Nodes) -> None:
    nodes.refresh()
    config = nodes.link.online.pop("node-1")
    assert dict(nodes.roster.refresh()) == {0: "node-0", 2: "node-2"}
    # What it said is kept: a round that it was drawn for may still be checked against it.
    assert nodes.roster.described[1].examples == _EXAMPLES
    nodes.link.online["node-1"] = config
    assert 1 not in nodes.roster.refresh()
    assert dict(nodes.roster.refresh()) == {0: "node-0", 1: "node-1", 2: "node-2"}
    assert nodes.told == []


def test_a_silent_node_gets_no_work_until_it_has_spoken_again(nodes: _Nodes) -> None:
    nodes.refresh()
    nodes.said["node-1"] = None
    nodes.roster.suspect(1)
    for _ in range(3):
        assert dict(nodes.roster.refresh()) == {0: "node-0", 2: "node-2"}
    # One question is open; it is not asked again and again.
    assert nodes.questions()[3:] == ["node-1"]
    del nodes.said["node-1"]
    assert dict(nodes.roster.refresh()) == {0: "node-0", 1: "node-1", 2: "node-2"}
    assert nodes.questions()[3:] == ["node-1"]


def test_doubt_of_a_client_that_was_never_there_is_nothing(nodes: _Nodes) -> None:
    nodes.roster.suspect(2)
    assert sorted(nodes.refresh()) == [0, 1, 2]


def test_a_silent_node_whose_question_expired_is_asked_again(nodes: _Nodes) -> None:
    nodes.refresh()
    nodes.roster.suspect(1)
    nodes.said["node-1"] = Error(EXPIRED, "too late")
    nodes.refresh()
    del nodes.said["node-1"]
    assert 1 in nodes.refresh()


@pytest.mark.parametrize("error", [Error(RAISED, "ImportError"), Error(EXPIRED, "too late"), Error(NODE_GONE, "gone")])
def test_a_node_that_cannot_answer_yet_is_asked_again_and_told_of_once(nodes: _Nodes, error: Error) -> None:
    nodes.said["node-1"] = error
    for _ in range(4):
        assert sorted(nodes.refresh()) == [0, 2]
    assert nodes.told == [f"node node-1 takes no part: {error.reason}"]
    assert nodes.questions().count("node-1") > 2
    del nodes.said["node-1"]
    assert sorted(nodes.refresh()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["refused", "version"])
def test_a_node_that_refuses_is_told_of_once_and_asked_again_once_a_minute(nodes: _Nodes, kind: str) -> None:
    nodes.said["node-1"] = wire.encode({"refused": "no images \x1b[2Jhere", "kind": kind}), b""
    nodes.a_look = 0.0
    for _ in range(3):
        assert sorted(nodes.refresh()) == [0, 2]
    nodes.now += 59.0
    nodes.refresh()
    assert nodes.questions().count("node-1") == 1
    # What was wrong may have been mended, and with it its node restarted between two looks.
    nodes.now += 1.0
    nodes.refresh()
    assert nodes.questions().count("node-1") == 2
    assert nodes.told == ["node node-1 takes no part: no images [2Jhere"]
    nodes.a_look = 60.0
    config = nodes.link.online.pop("node-1")
    nodes.refresh()
    nodes.link.online["node-1"] = config
    nodes.refresh()
    assert len(nodes.told) == 2
    del nodes.said["node-1"], nodes.link.online["node-1"]
    nodes.refresh()
    nodes.link.online["node-1"] = config
    assert sorted(nodes.refresh()) == [0, 1, 2]
    assert len(nodes.told) == 2


def test_a_question_that_was_lost_is_asked_again_and_late_news_of_it_change_nothing(nodes: _Nodes) -> None:
    nodes.said["node-1"] = None
    nodes.a_look = 0.0
    assert sorted(nodes.refresh()) == [0, 2]
    nodes.now += 89.0
    nodes.refresh()
    assert nodes.questions().count("node-1") == 1
    nodes.now += 1.0
    nodes.refresh()
    assert nodes.questions().count("node-1") == 2
    first, second = (message.name for message in nodes.link.sent if message.node == "node-1")
    del nodes.said["node-1"]
    nodes.link.pick = lambda waiting: [name for name in waiting if name != first]
    assert sorted(nodes.refresh()) == [0, 1, 2]
    nodes.said["node-1"] = Error(EXPIRED, "too late")
    nodes.link.pick = lambda waiting: waiting
    assert sorted(nodes.refresh()) == [0, 1, 2]
    assert nodes.told == []
    assert first != second


def test_of_two_nodes_that_are_one_client_the_first_is_it(nodes: _Nodes) -> None:
    nodes.refresh()
    nodes.join("node-9", 1)
    for _ in range(3):
        assert nodes.refresh()[1] == "node-1"
    (told,) = nodes.told
    assert told == (
        "node node-9 takes no part: it is client 1, as node node-1 is; give each node a partition-id of its own"
    )


def test_a_squatter_is_named_and_gets_no_number_that_is_bound(tmp_path: Path) -> None:
    nodes = _Nodes(tmp_path, Bindings({0: "node-0", 1: "node-1", 2: "node-2"}, "list", {}))
    # It is there before the real one, which is not locked out.
    real = nodes.link.online.pop("node-1")
    nodes.join("node-9", 1)
    assert sorted(nodes.refresh()) == [0, 2]
    nodes.link.online["node-1"] = real
    assert nodes.refresh() == {0: "node-0", 1: "node-1", 2: "node-2"}
    assert nodes.told == ["node node-9 takes no part: it says it is client 1, which by list is node node-1's"]
    assert 1 in nodes.roster.described


def test_the_first_node_keeps_its_number_when_it_is_silent_or_away(tmp_path: Path) -> None:
    nodes = _Nodes(tmp_path, Bindings(None, "nodes.json", {}))
    nodes.refresh()
    nodes.join("node-9", 1)
    nodes.said["node-1"] = None
    nodes.roster.suspect(1)
    assert sorted(nodes.refresh()) == [0, 2]
    config = nodes.link.online.pop("node-1")
    assert sorted(nodes.refresh()) == [0, 2]
    del nodes.said["node-1"]
    nodes.link.online["node-1"] = config
    assert nodes.refresh()[1] == "node-1"
    # Nor may a node have two numbers, one after the other.
    nodes.say("node-0", client=2)
    nodes.roster.suspect(0)
    nodes.refresh()
    assert [line.partition(": ")[2].partition(",")[0] for line in nodes.told] == [
        "it says it is client 1", "it says it is client 2",
    ]  # fmt: skip


def test_a_client_that_nobody_can_believe_takes_no_part_and_the_others_go_on(nodes: _Nodes) -> None:
    # 2³⁰ images, with a histogram of as many pixels: more than any mean by images or normalisation should hear of.
    nodes.say("node-1", examples=MOST_IMAGES, pixels=_pixels(MOST_IMAGES * _SIDE**2))
    for _ in range(3):
        assert sorted(nodes.refresh()) == [0, 2]
    assert sorted(nodes.roster.described) == [0, 2]
    (told,) = nodes.told
    assert told.startswith("node node-1 takes no part: it says 1,073,741,824 training images; at most 10,000,000")
    # It is believed once it speaks sense.
    del nodes.said["node-1"]
    nodes.roster.suspect(1)
    assert sorted(nodes.refresh()) == [0, 1, 2]


def test_a_client_of_countless_classes_takes_no_part_also_if_it_was_first(nodes: _Nodes) -> None:
    others = {name: nodes.link.online.pop(name) for name in ("node-0", "node-2")}
    nodes.say("node-1", classes=[f"class-{index}" for index in range(999)])
    assert sorted(nodes.refresh()) == [1]
    nodes.link.online |= others
    assert sorted(nodes.refresh()) == [0, 2]
    (told,) = nodes.told
    assert "999 classes, 999 of them its own" in told


def test_a_node_that_was_restarted_takes_its_clients_place_once_the_old_one_is_off_the_list(nodes: _Nodes) -> None:
    nodes.refresh()
    # Flower gives a restarted node a new number, and lists the old one for another minute.
    nodes.join("node-9", 1)
    assert nodes.refresh()[1] == "node-1"
    del nodes.link.online["node-1"]
    assert 1 not in nodes.roster.refresh()
    assert nodes.roster.refresh()[1] == "node-9"
    assert len(nodes.told) == 1


def test_a_node_that_was_restarted_takes_its_clients_place_when_the_old_one_is_silent(nodes: _Nodes) -> None:
    nodes.refresh()
    nodes.said["node-1"] = None
    nodes.roster.suspect(1)
    nodes.join("node-9", 1)
    assert nodes.refresh() == {0: "node-0", 1: "node-9", 2: "node-2"}
    assert nodes.told == []
    # The old one speaks after all: the place is taken.
    del nodes.said["node-1"]
    assert nodes.refresh() == {0: "node-0", 1: "node-9", 2: "node-2"}
    assert len(nodes.told) == 1


def test_a_node_that_was_restarted_as_another_client_is_that_client_alone(nodes: _Nodes) -> None:
    del nodes.link.online["node-2"]
    nodes.refresh()
    nodes.roster.suspect(1)
    nodes.link.online["node-1"] = config_of(2)
    assert nodes.refresh() == {0: "node-0", 2: "node-1"}


def test_a_node_that_says_more_images_later_is_known_by_those(nodes: _Nodes) -> None:
    nodes.refresh()
    nodes.say("node-1", examples=20, pixels=_pixels(20 * 64))
    nodes.roster.suspect(1)
    nodes.refresh()
    assert nodes.roster.described[1].examples == 20


_NO_CLASSES: list[object] = [
    "ab", None, [], ["a", 1], ["a", "a"], {"a": 1}, [["a"]], ["a\x1b[2J", "b"], ["x" * 1000],
]  # fmt: skip
_NO_NUMBERS: list[object] = [-1, True, 1.0, "1", None, [], 10**290]
_NO_PIXELS: list[object] = [None, [], _pixels()[:2], [*_pixels(), _pixels()[0]], {"0": _pixels()[0]}, "abc"]
_ABSURD: list[tuple[str, object]] = [
    *((name, ...) for name in ("client", "examples", "validation", "classes", "pixels")),
    *((name, odd) for name in ("client", "examples", "validation") for odd in _NO_NUMBERS),
    ("client", 3),
    ("examples", 0),
    ("examples", MOST_IMAGES + 1),
    ("validation", MOST_IMAGES + 1),
    *(("classes", odd) for odd in _NO_CLASSES),
    *(("pixels", odd) for odd in _NO_PIXELS),
    ("pixels", [counts[:-1] for counts in _pixels()]),
    ("pixels", [[0] * 256] * 3),
    ("pixels", [[641, -1, *[0] * 254]] * 3),
    ("pixels", [[640.0, *[0] * 255]] * 3),
    ("pixels", [[True, 639, *[0] * 254]] * 3),
    ("pixels", [[1 << 60, *[0] * 255]] * 3),
    ("pixels", _pixels(_EXAMPLES * _SIDE**2 - 1)),
    ("pixels", [*_pixels()[:2], _pixels(1280)[2]]),
]


@pytest.mark.parametrize(("name", "value"), _ABSURD, ids=[f"{name}-{i}" for i, (name, _) in enumerate(_ABSURD)])
def test_an_absurd_description_keeps_a_node_out_and_nobody_else(nodes: _Nodes, name: str, value: object) -> None:
    nodes.say("node-1", **{name: value})
    for _ in range(2):
        assert sorted(nodes.refresh()) == [0, 2]
    assert sorted(nodes.roster.described) == [0, 2]
    (told,) = nodes.told
    assert name in told
    assert told.isprintable()
    assert len(told) < 300
    assert nodes.link.files() == []


def test_a_description_larger_than_any_is_not_read(nodes: _Nodes) -> None:
    nodes.said["node-1"] = wire.encode(_description(1)), b"x" * (1 << 23)
    assert sorted(nodes.refresh()) == [0, 2]
    assert nodes.told == ["node node-1 takes no part: larger than any answer to this message"]


def test_a_lost_line_is_raised_and_the_questions_are_asked_anew_when_they_are_forgotten(nodes: _Nodes) -> None:
    nodes.roster.refresh()
    nodes.link.before = lost("collect")
    with pytest.raises(LineLost):
        nodes.roster.refresh()
    nodes.link.before = lambda what: None
    nodes.roster.forget_questions()
    assert sorted(nodes.refresh()) == [0, 1, 2]
    assert len(nodes.questions()) == 6


def test_who_was_there_before_a_lost_line_need_not_speak_again(nodes: _Nodes) -> None:
    before = nodes.refresh()
    nodes.roster.forget_questions()
    assert dict(nodes.roster.refresh()) == before
    assert len(nodes.questions()) == 3


def test_a_node_that_goes_on_to_fail_is_left_alone_for_ever_longer(nodes: _Nodes) -> None:
    nodes.said["node-1"] = Error(RAISED, "ImportError")
    nodes.a_look = 0.125
    asked = []
    for _ in range(1000):
        before = nodes.questions().count("node-1")
        nodes.refresh()
        if nodes.questions().count("node-1") > before:
            asked.append(nodes.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    del nodes.said["node-1"]
    nodes.a_look = 60.0
    assert sorted(nodes.refresh()) == [0, 1, 2]
