import dataclasses
from collections.abc import Callable

import pytest
from helpers.runs.trackers import QUIET

from fedpareto.training.trackers.pace import Pace
from fedpareto.training.trackers.records import RoundRecord


def _clocked(done: int = 0) -> tuple[Pace, Callable[[float], None]]:
    now = [100.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    return Pace(done, lambda: now[0]), wait


def _record(number: int, seconds: float) -> RoundRecord:
    return dataclasses.replace(QUIET, round=number, seconds=seconds)


def test_before_anything_is_measured_nothing_is_known() -> None:
    pace, wait = _clocked(4)
    wait(7)
    assert pace.seconds_left is None
    assert pace.words() == (
        "finishing round 5 without an evaluation: how long that takes is not known, as no client has answered yet"
    )


@pytest.mark.parametrize(("done", "clients", "passed", "left"), [(1, 4, 10, 30), (3, 4, 30, 10), (4, 4, 40, 0)])
def test_the_first_round_is_estimated_from_the_clients_that_have_answered(
    done: int, clients: int, passed: float, left: float
) -> None:
    pace, wait = _clocked()
    wait(passed)
    pace.client_done(1, done, clients)
    assert pace.seconds_left == pytest.approx(left)


def test_a_later_round_takes_as_long_as_the_one_before_it() -> None:
    pace, wait = _clocked()
    wait(50)
    pace.round_done(_record(1, 40.0))
    wait(15)
    assert pace.seconds_left == pytest.approx(25)
    assert pace.words() == "finishing round 2 without an evaluation: about 25 s"
    # Slower than the one before: what has answered tells more.
    wait(45)
    pace.client_done(2, 3, 4)
    assert pace.seconds_left == pytest.approx(20)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "about 1 s"), (89.5, "about 90 s"), (90, "about 2 min"), (330, "about 6 min")]
)
def test_time_is_told_as_people_tell_it(seconds: float, words: str) -> None:
    pace, _ = _clocked()
    pace.round_done(_record(1, seconds))
    assert pace.words().endswith(f": {words}")
