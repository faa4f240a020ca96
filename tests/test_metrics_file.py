import json
from pathlib import Path

import pytest
from simulation import Recorder

from supernet.errors import UserError
from training.evaluation import Probe
from training.records import LostRound, RoundRecord
from training.trackers.metrics_file import MetricsFile, read_records
from training.trackers.protocol import Trackers


def _record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        train_loss=1.5,
        lr=0.1,
        beta=0.9,
        clients=({"client": 3, "macs": 100, "failure": "shape", "reason": "ä has shape"},),
        failures={"shape": 1},
        bytes_up=10,
        bytes_down=20,
        bytes_whole=40,
        seconds=2.0,
        sgd_seconds=1.5,
        overhead_share=0.25,
        evaluation_seconds=0.5,
        probes=(Probe(100, 50, 0.25), Probe(200, 70, 0.75)),
        trained=(1, 0),
    )


def _rounds(path: Path) -> list[int]:
    return [json.loads(line)["round"] for line in path.read_text().splitlines()]


def _filled(path: Path, rounds: int) -> str:
    tracker = MetricsFile(path, 0)
    for number in range(1, rounds + 1):
        tracker.round_done(_record(number))
    tracker.close()
    return path.read_text()


def test_every_round_is_one_line_of_json_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = MetricsFile(path, 0)
    for number in (1, 2, 3):
        tracker.round_done(_record(number))
        assert _rounds(path) == list(range(1, number + 1))
    line = json.loads(path.read_text().splitlines()[0])
    assert line == json.loads(json.dumps(_record(1).to_json()))
    assert line["probes"][1] == {"macs": 200, "params": 70, "accuracy": 0.75}
    assert line["clients"][0]["reason"] == "ä has shape"


def test_the_mean_accuracy_of_a_round_is_that_of_its_probes() -> None:
    assert _record(1).mean_accuracy == 0.5


def test_rounds_after_the_checkpoint_are_dropped_and_told_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    before = _filled(path, 5)
    tracker = MetricsFile(path, 3)
    assert _rounds(path) == [1, 2, 3]
    for number in (4, 5):
        tracker.round_done(_record(number))
    assert path.read_text() == before


def test_a_round_that_was_lost_is_a_line_that_stays_and_no_round(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    before = _filled(path, 3)
    lost = LostRound(4, ({"client": 3, "macs": 100, "failure": "lost", "reason": "it is gone"},), {"lost": 1}, 0, 20)
    MetricsFile(path, 3).round_lost(lost)
    assert json.loads(path.read_text().splitlines()[-1]) == json.loads(json.dumps(lost.to_json()))
    assert [record["round"] for record in read_records(path)] == [1, 2, 3]
    tracker = MetricsFile(path, 3)
    tracker.round_done(_record(4))
    assert path.read_text().startswith(before)
    assert _rounds(path) == [1, 2, 3, 4, 4]
    assert [record["merged"] for record in read_records(path)] == [True] * 4


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    text = _filled(path, 3)
    for cut in (1, 10, len(text.splitlines()[-1])):
        path.write_text(text[:-cut])
        tracker = MetricsFile(path, 2)
        tracker.round_done(_record(3))
        assert path.read_text() == text


def test_a_file_up_to_its_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    text = _filled(path, 3)
    MetricsFile(path, 3)
    assert path.read_text() == text


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "metrics.jsonl"
    with pytest.raises(UserError, match=f"cannot write {path}: No such file"):
        MetricsFile(path, 0).round_done(_record(1))


def test_several_trackers_are_told_of_everything_as_one(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    both = Trackers([first, second])
    both.client_done(1, 2, 3)
    both.round_done(_record(1))
    both.checkpoint(tmp_path / "round-000001", ["best"])
    both.close()
    for told in (first, second):
        assert told.clients == [(1, 2, 3)]
        assert told.records == [_record(1)]
        assert told.checkpoints == [("round-000001", ["best"])]
        assert told.closed == 1
