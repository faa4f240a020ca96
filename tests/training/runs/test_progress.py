"""How far a run is, with and without a search before what is scheduled."""

import dataclasses

import pytest

from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.progress import Progress, extent, known_rounds
from fedpareto.training.runs.state import Counts, Origin, RunState

_STATE = RunState(7, Counts((), ()), (), compute=700)


def _at(origin: Origin | None) -> RunState:
    return dataclasses.replace(_STATE, origin=origin)


@pytest.mark.parametrize(
    ("compute", "origin", "expected"),
    [
        (None, Origin(), Progress(7, 10)),
        (None, Origin(3, 300), Progress(4, 10)),
        (None, None, Progress(0, 10)),
        ("1000", Origin(), Progress(700, 1000, 5)),
        ("1000", Origin(3, 300), Progress(400, 700, 5)),
        ("1000", None, Progress(700, 1000, 5)),
    ],
)
def test_rounds_and_compute_count_from_where_the_schedule_began(
    compute: str | None, origin: Origin | None, expected: Progress
) -> None:
    assert extent(RunConfig(rounds=10, compute=compute), _at(origin)) == expected


@pytest.mark.parametrize("origin", [Origin(), None, Origin(7, 700), Origin(5, 699)])
def test_used_up_compute_ends_a_run_wherever_it_is(origin: Origin | None) -> None:
    # The last would be within half a per cent.
    for limit in (600, 700, 703):
        found = extent(RunConfig(compute=str(limit)), _at(origin))
        assert found.finished
        assert found.share == 1
    for limit in (704, 1000):
        found = extent(RunConfig(compute=str(limit)), _at(origin))
        assert not found.finished
        assert found.left == limit - 700
        assert 0 <= found.share < 1


@pytest.mark.parametrize("rounds", [2, 199, 10_000])
def test_of_rounds_none_is_negligible(rounds: int) -> None:
    state = dataclasses.replace(_STATE, round=rounds - 1)
    assert not extent(RunConfig(rounds=rounds), state).finished
    assert extent(RunConfig(rounds=rounds), dataclasses.replace(state, round=rounds)).finished


def test_a_search_is_never_finished_by_rounds() -> None:
    assert not extent(RunConfig(rounds=1), _at(None)).finished
    assert extent(RunConfig(rounds=1), _at(None)).share == 0


def test_the_rounds_of_a_run_are_known_unless_compute_ends_it_or_a_search_comes_first() -> None:
    assert known_rounds(RunConfig(rounds=10)) == 10
    assert known_rounds(RunConfig(compute="1G")) is None
    assert known_rounds(RunConfig(method="decnas", decnas=DecNasConfig("60M"))) is None
