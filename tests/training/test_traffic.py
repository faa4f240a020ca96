"""Bytes of messages: added, and in the JSON of records and checkpoints, whose keys are older than the value."""

import dataclasses
from typing import Any

import pytest

from fedpareto.training.aggregation.round_results import ClientResult
from fedpareto.training.runs.state import Body, Counts, RunState, body_to_json
from fedpareto.training.trackers.records import LostRound, RoundRecord, lost_from_json, record_from_json
from fedpareto.training.traffic import NO_TRAFFIC, Traffic, gathered, spread

_RECORD = RoundRecord(
    1, 0.5, 0.1, None, (), {}, Traffic(10, 20), 40, 1.0, 0.5, 0.5, 0.0, (), (1,), evaluation_traffic=Traffic(3, 4)
)


def test_traffic_adds_way_by_way_and_is_never_negative() -> None:
    assert Traffic(1, 2) + Traffic(30, 40) == Traffic(31, 42)
    assert Traffic(1, 2) + NO_TRAFFIC == Traffic(1, 2)
    for up, down in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="negative"):
            Traffic(up, down)


def test_the_json_of_a_record_names_the_bytes_each_way_where_it_always_did() -> None:
    keys = list(_RECORD.to_json())
    assert keys[5:9] == ["failures", "bytes_up", "bytes_down", "bytes_whole"]
    assert keys[18:21] == ["evaluation_failures", "evaluation_bytes_up", "evaluation_bytes_down"]
    saved = _RECORD.to_json()
    sent = [saved[name] for name in ("bytes_up", "bytes_down", "evaluation_bytes_up", "evaluation_bytes_down")]
    assert sent == [10, 20, 3, 4]
    assert record_from_json(saved) == _RECORD
    lost = LostRound(2, (), {"lost": 1}, Traffic(5, 6))
    assert list(lost.to_json().items())[3:5] == [("bytes_up", 5), ("bytes_down", 6)]
    assert lost_from_json(lost.to_json()) == lost


def test_records_from_before_there_was_evaluation_by_clients_have_no_traffic_of_one() -> None:
    old = {name: value for name, value in _RECORD.to_json().items() if not name.startswith("evaluation_bytes")}
    assert record_from_json(old) == dataclasses.replace(_RECORD, evaluation_traffic=NO_TRAFFIC)


@pytest.mark.parametrize(
    "changes",
    [{"bytes_up": -1}, {"evaluation_bytes_down": -1}, {"bytes_down": "20"}, {"traffic": {"up": 1, "down": 2}}],
    ids=str,
)
def test_bytes_of_nonsense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"negative|is no|unknown field"):
        record_from_json({**_RECORD.to_json(), **changes})
    half = _RECORD.to_json()
    del half["bytes_up"]
    with pytest.raises(ValueError, match="missing"):
        record_from_json(half)


def test_the_state_of_a_run_names_the_bytes_each_way_where_it_always_did() -> None:
    state = RunState(1, Counts.zero(1), (0,), traffic=Traffic(7, 8))
    saved = body_to_json(Body(2, state, {}, {}))["state"]
    assert list(saved)[4:8] == ["best", "bytes_up", "bytes_down", "wandb_id"]
    assert (saved["bytes_up"], saved["bytes_down"]) == (7, 8)


def test_the_result_of_a_client_names_its_bytes_in_the_order_of_all_records() -> None:
    saved = ClientResult(10, 0.5, 70, Traffic(1, 2)).to_json()
    assert list(saved.items()) == [("examples", 10), ("loss", 0.5), ("compute", 70), ("bytes_down", 2), ("bytes_up", 1)]


def test_what_is_gathered_is_what_was_spread() -> None:
    values = {"a": 1, "traffic": {"up": 1, "down": 2}, "own_traffic": {"up": 3, "down": 4}}
    assert spread(values) == {"a": 1, "bytes_up": 1, "bytes_down": 2, "own_bytes_up": 3, "own_bytes_down": 4}
    assert gathered(spread(values), "traffic", "own_traffic") == values
    assert gathered([1], "traffic") == [1]
