"""Every received field, drawn at random: whatever a client says, it is refused in one line or is within all bounds."""

import copy
import dataclasses
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO
from helpers.runs.flower import Honest, LocalLink, Message, Reaction, engine_of, hurry
from helpers.runs.flower_rounds import ready
from helpers.runs.simulation import micro_task, random_tensors, smallest
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.networks.weights import views
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.admission import ClientDescription, Plausible
from fedpareto.training.engines.flower.engine import FlowerEngine
from fedpareto.training.engines.flower.exchange import ReplyFailure, read_reply
from fedpareto.training.engines.flower.relay_socket import Reply
from fedpareto.training.engines.flower.roster import read_description
from fedpareto.training.engines.flower.wire import WireError
from fedpareto.training.evaluation.calibration import blank_network
from fedpareto.training.messages import (
    CalibrationTask,
    Correct,
    EvaluationTask,
    Failure,
    Statistics,
    Task,
    Update,
    check_update,
)

_CLIENT = 1

#: Cases of each of the four kinds of messages, in the quick suite and in the slow one.
_QUICK, _SLOW = 150, 3000

_NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([1 << 30, (1 << 30) + 1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**290, 10**400, -(10**400)]),
    st.floats(),
    st.sampled_from([1e30, -1e30, 3.4e38, 3.5e38, 1e300, 5e-324, -0.0]),
)
_TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x1b[2J\x07\r\n\u202e", "x" * 5000, "\u0661", "1", "train", "\ud800", "__class__", "../../etc"]
    ),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=8,
)
_DTYPES = st.sampled_from(
    ["F32", "F64", "BF16", "F16", "I8", "U8", "BOOL", "I64", "C64", "F8_E4M3", "F4", "", "\x1b[2J"]
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in a JSON value; of lists the first items."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from _paths(each, (*path, name))


@st.composite
def _header(draw: st.DrawFn, honest: bytes) -> bytes:
    """A header: the honest one with some values replaced, left out or added, or with bytes that are damaged."""
    how = draw(st.sampled_from(["fields", "fields", "fields", "cut", "bytes", "any"]))
    if how == "cut":
        return honest[: draw(st.integers(0, len(honest)))]
    if how == "bytes":
        return _damaged(draw, honest)
    if how == "any":
        return json.dumps(draw(_VALUES)).encode(errors="surrogatepass")
    fields = copy.deepcopy(json.loads(honest))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_paths(fields))
        if not places:
            break
        *outer, last = draw(st.sampled_from(places))
        holder = fields
        for name in outer:
            holder = holder[name]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = draw(_VALUES)
    if draw(st.booleans()) and draw(st.booleans()):
        fields[draw(st.sampled_from(["refused", "kind", "jobs", "more"]))] = draw(_VALUES)
    return json.dumps(fields).encode(errors="surrogatepass")


def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4)) if damaged else 0):
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged)


@st.composite
def _blob(draw: st.DrawFn, honest: bytes) -> bytes:
    """A blob: the honest one, cut, lengthened, with damaged bytes or an edited header, or anything."""
    how = draw(st.sampled_from(["honest", "cut", "longer", "bytes", "values", "header", "header", "any"]))
    if how == "honest":
        return honest
    if how == "any" or len(honest) < 9:
        return draw(st.binary(max_size=64))
    (size,) = struct.unpack("<Q", honest[:8])
    header, data = honest[8 : 8 + size], honest[8 + size :]
    if how == "cut":
        return honest[: draw(st.integers(0, len(honest)))]
    if how == "longer":
        return honest + draw(st.binary(min_size=1, max_size=9))
    if how == "bytes":
        return struct.pack("<Q", size) + _damaged(draw, header) + data
    if how == "values":
        # NaN, infinities, and numbers of any size.
        return honest[: 8 + size] + _damaged(draw, data)
    fields = json.loads(header)
    name = draw(st.sampled_from(sorted(fields)))
    entry = fields.pop(name) if draw(st.booleans()) else fields[name]
    part = draw(st.sampled_from(["name", "dtype", "shape", "data_offsets"]))
    if part == "name":
        fields[draw(_TEXTS)] = entry
    else:
        value = {"dtype": _DTYPES | _VALUES, "shape": st.lists(_NUMBERS, max_size=4) | _VALUES}.get(part, _VALUES)
        fields[name] = {**entry, part: draw(value)}
    edited = json.dumps(fields).encode(errors="surrogatepass")
    return struct.pack("<Q", len(edited) if draw(st.booleans()) else size) + edited + data


class _Asked:
    """An engine that asks one client, whose answer is what a test says."""

    def __init__(self, engine: FlowerEngine, link: LocalLink) -> None:
        self.engine, self.link = engine, link
        supernet, network = random_tensors(), blank_network(MICRO, random_tensors(), smallest())
        tensors = views(MICRO, supernet, smallest())
        self.tasks: dict[str, Task | CalibrationTask | EvaluationTask] = {
            "train": dataclasses.replace(micro_task(smallest()), client=_CLIENT, tensors=tensors),
            "calibrate": CalibrationTask(_CLIENT, smallest(), tensors, 2, 16, seed=7),
            "evaluate": EvaluationTask(_CLIENT, smallest(), network.state_dict(), 64),
        }
        self.honest: dict[str, Honest] = {}
        for kind in self.tasks:
            link.spoil = self._noting(kind)
            assert not isinstance(self.answer(kind), Failure)
        (described,) = [message for message in link.asked("describe") if message.client == _CLIENT]
        self.honest["describe"] = link._answer(described)

    def _noting(self, kind: str) -> Callable[[Message, Callable[[], Honest]], Reaction]:
        def note(message: Message, answer: Callable[[], Honest]) -> Reaction:
            del message
            self.honest[kind] = answer()
            return self.honest[kind]

        return note

    def answer(self, kind: str) -> Any:
        """Return the engine's one answer to the task of a kind."""
        ask: Any = {"train": self.engine.run, "calibrate": self.engine.calibrate, "evaluate": self.engine.evaluate}[
            kind
        ]
        (answer,) = ask([self.tasks[kind]])
        # What a client is suspected of must not keep it from the next question.
        self.engine._roster._silent.clear()
        return answer


@pytest.fixture(scope="module")
def asked(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Asked]:
    folder = tmp_path_factory.mktemp("asked")
    link = LocalLink(folder / "link", 4)
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        yield _Asked(engine_of(ready(dataclasses.replace(base, output=str(folder / "run")), link)), link)


def _check_refusal(kind: str, reason: str) -> None:
    assert kind
    assert reason.isprintable()
    assert 0 < len(reason) <= 400


def _check(asked: _Asked, kind: str, header: bytes, blob: bytes) -> None:
    """Let the client answer; what comes of it is a failure in one line, or within all bounds."""
    asked.link.spoil = lambda message, answer: (header, blob)
    answer, described = asked.answer(kind), asked.engine._roster.described[_CLIENT]
    assert asked.link.files() == []
    if isinstance(answer, Update):
        answer = check_update(answer) or answer
    if isinstance(answer, Failure):
        _check_refusal(answer.kind, answer.reason)
    elif isinstance(answer, Update):
        assert answer.examples == described.examples
        assert -1e-3 <= answer.loss < 1e39
        assert 0 <= answer.compute < 1 << 40
        assert 0 <= answer.sgd_seconds < 1000
        assert all(tensor.isfinite().all() for tensor in answer.tensors.values())
    elif isinstance(answer, Statistics):
        assert answer.images in (0, answer.batches * 16)
        assert 0 <= answer.batches <= 2
        assert all(tensor.isfinite().all() for tensor in answer.sums.values())
    else:
        assert isinstance(answer, Correct)
        assert 0 <= answer.correct <= answer.images <= described.validation


def _check_description(folder: Path, header: bytes) -> None:
    path = folder / "blob"
    path.write_bytes(b"")
    answer = read_reply(Reply(header, path))
    if isinstance(answer, ReplyFailure):
        _check_refusal(answer.kind, answer.reason)
        return
    try:
        described = read_description(answer, 4, MICRO.resolutions[-1], MICRO.in_channels)
    except WireError as error:
        _check_refusal("malformed", str(error))
        return
    assert type(described.client) is int
    assert 0 <= described.client < 4
    others = {client: ClientDescription(client, 100, 10, ("a", "b"), ()) for client in range(4)}
    found = Plausible.of(FlowerConfig()).implausible({**others, described.client: described})
    assert described.client in found or described.examples <= 10_000
    for reason in found.values():
        _check_refusal("implausible", reason)


@pytest.mark.parametrize("kind", ["train", "calibrate", "evaluate"])
def test_some_answers_of_any_kind(asked: _Asked, kind: str) -> None:
    _fuzz(asked, kind, _QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "calibrate", "evaluate"])
def test_thousands_of_answers_of_any_kind(asked: _Asked, kind: str) -> None:
    _fuzz(asked, kind, _SLOW)


def _fuzz(asked: _Asked, kind: str, cases: int) -> None:
    honest_header, honest_blob = asked.honest[kind]

    @runs(cases)
    @given(
        st.one_of(st.just(honest_header), _header(honest_header)), st.one_of(st.just(honest_blob), _blob(honest_blob))
    )
    def check(header: bytes, blob: bytes) -> None:
        _check(asked, kind, header, blob)

    check()


def test_some_descriptions(asked: _Asked, tmp_path: Path) -> None:
    _fuzz_descriptions(asked, tmp_path, _QUICK)


@pytest.mark.slow
def test_thousands_of_descriptions(asked: _Asked, tmp_path: Path) -> None:
    _fuzz_descriptions(asked, tmp_path, _SLOW)


def _fuzz_descriptions(asked: _Asked, folder: Path, cases: int) -> None:
    @runs(cases)
    @given(_header(asked.honest["describe"][0]))
    def check(header: bytes) -> None:
        _check_description(folder, header)

    check()


def test_an_honest_answer_passes(asked: _Asked) -> None:
    for kind in asked.tasks:
        asked.link.spoil = asked._noting(kind)
        assert not isinstance(asked.answer(kind), Failure)
    assert wire.decode(asked.honest["describe"][0])["client"] == _CLIENT
