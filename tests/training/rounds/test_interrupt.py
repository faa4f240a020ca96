import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedpareto.training.engines.protocol import Stopped
from fedpareto.training.rounds.interrupt import UNINTERRUPTED, StopRequest, stop_on_interrupt

INT, TERM = signal.SIGINT, signal.SIGTERM


def _asked(numbers: Sequence[int]) -> StopRequest:
    request = StopRequest(lambda: "finishing round 3: about 5 s")
    for number in numbers:
        request.hear(number, None)
    return request


@pytest.mark.parametrize(
    ("numbers", "stops", "at_once", "code"),
    [
        ([], False, False, 130),
        ([INT], True, False, 130),
        ([INT, INT], True, True, 130),
        ([INT, INT, INT], True, True, 130),
        ([TERM], True, True, 143),
        ([INT, TERM], True, True, 143),
        ([TERM, INT], True, True, 143),
    ],
)
def test_one_interrupt_ends_at_the_rounds_edge_and_more_at_once(
    numbers: Sequence[int], stops: bool, at_once: bool, code: int
) -> None:
    request = _asked(numbers)
    assert (request(), request.at_once, request.exit_code) == (stops, at_once, code)
    assert not request.abandoned


@pytest.mark.parametrize(("numbers", "left"), [([INT], False), ([INT, INT], True), ([TERM], True), ([INT, TERM], True)])
def test_training_is_left_when_the_run_is_to_stop_at_once(numbers: Sequence[int], left: bool) -> None:
    request, done = _asked([]), []
    try:
        with request.training():
            for number in numbers:
                request.hear(number, None)
            done.append("trained")
    except Stopped:
        assert left
    assert done == ([] if left else ["trained"])
    assert request.abandoned == left


@pytest.mark.parametrize("number", [INT, TERM])
def test_an_evaluation_is_left_at_any_signal_and_not_begun_after_one(number: int) -> None:
    request = _asked([])
    with pytest.raises(Stopped), request.evaluating():
        request.hear(number, None)
    for block in (request.evaluating, request.training):
        with pytest.raises(Stopped), block():
            raise AssertionError("it was begun")


def test_what_follows_a_block_that_was_left_is_done_to_its_end() -> None:
    request = _asked([])
    with pytest.raises(Stopped), request.training():
        request.hear(TERM, None)
    for number in (TERM, INT, INT):
        request.hear(number, None)
    assert request.at_once


def test_between_blocks_a_signal_waits_for_the_next() -> None:
    request = _asked([])
    with request.training():
        pass
    request.hear(TERM, None)
    assert not request.abandoned
    with pytest.raises(Stopped), request.training():
        pass


def test_the_user_is_told_what_a_signal_leads_to(capfd: pytest.CaptureFixture[str]) -> None:
    request = _asked([])
    assert [request.tell(number) for number in (INT, INT, INT)] == [False, True, False]
    told = capfd.readouterr().err.splitlines()
    assert told == ["finishing round 3: about 5 s; interrupt again to stop at once", "stopping at once"]
    assert _asked([]).tell(TERM)


@pytest.fixture
def handlers() -> Iterator[list[object]]:
    """Handlers as they were, put back after the test."""
    numbers = (INT, TERM)
    before = [signal.getsignal(number) for number in numbers]
    yield list(before)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def _present() -> list[object]:
    return [signal.getsignal(number) for number in (INT, TERM)]


def test_a_signal_is_heard_in_the_block_and_later_ones_are_not(tmp_path: Path, handlers: list[object]) -> None:
    request = _asked([])
    with stop_on_interrupt(tmp_path, request):
        assert _present() != handlers
        assert not request()
        os.kill(os.getpid(), INT)
        assert request()
    assert _present() == [signal.SIG_IGN, signal.SIG_IGN]
    # Ctrl-C that comes while the interpreter ends changes nothing.
    os.kill(os.getpid(), INT)
    os.kill(os.getpid(), TERM)


def test_handlers_are_as_before_when_a_run_ends_by_itself(tmp_path: Path, handlers: list[object]) -> None:
    with stop_on_interrupt(tmp_path, _asked([])):
        assert _present() != handlers
    assert _present() == handlers
    with pytest.raises(ValueError, match="broken"), stop_on_interrupt(tmp_path, _asked([])):
        raise ValueError("broken")
    assert _present() == handlers


def test_without_signals_blocks_are_like_any_other() -> None:
    with UNINTERRUPTED.training(), UNINTERRUPTED.evaluating():
        pass
