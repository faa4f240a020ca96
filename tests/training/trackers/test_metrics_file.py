import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.runs.simulation import Recorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.trackers.metrics_file import MetricsFile, last_share, mend, read_records
from fedpareto.training.trackers.protocol import Trackers
from fedpareto.training.trackers.records import LostRound, RoundRecord
from fedpareto.training.traffic import Traffic


def _record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        train_loss=1.5,
        lr=0.1,
        beta=0.9,
        clients=({"client": 3, "macs": 100, "failure": "shape", "reason": "ä has shape"},),
        failures={"shape": 1},
        traffic=Traffic(10, 20),
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
    lost = LostRound(
        4, ({"client": 3, "macs": 100, "failure": "lost", "reason": "it is gone"},), {"lost": 1}, Traffic(0, 20)
    )
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


_ROUNDS = 6


def _line(number: int) -> bytes:
    return json.dumps(_record(number).to_json()).encode()


def _changed(**fields: object) -> bytes:
    return json.dumps({**_record(3).to_json(), **fields}).encode()


#: What may have become of the third of six lines.
_DAMAGED_LINES = {
    "gone": None,
    "empty": b"",
    "cut": _line(3)[:80],
    "nul": _line(3).replace(b"1.5", b"\0\0\0"),
    "binary": bytes(range(128, 200)),
    "no object": b"[1, 2]",
    "nothing of a record": b"{}",
    "a field of another type": _changed(probes=3),
    "probes of another type": _changed(probes=[{"macs": "many", "params": 1, "accuracy": 0.5}]),
    "a number as text": _changed(seconds="2"),
    "a negative number": _changed(seconds=-2.0),
    "no round": _changed(round=0),
    "a share above 1": _changed(done=1.5),
    "an accuracy above 1": _changed(probes=[{"macs": 1, "params": 1, "accuracy": 90.0}]),
    "true for a number": _changed(compute=True),
    "an unknown field": _changed(new=1),
    "a huge float": _line(3).replace(b"2.0", b"1e400"),
    "a huge whole number": _line(3).replace(b"2.0", b"9" * 400),
    "a very long number": _line(3).replace(b"2.0", b"9" * 5000),
    "no number": _changed(lr=float("nan")),
    "infinite": _line(3).replace(b"2.0", b"Infinity"),
    "nested deeply": b"[" * 100_000,
    "told of twice": _line(3) + b"\n" + _changed(lr=0.5),
}


@pytest.mark.parametrize("name", _DAMAGED_LINES)
def test_a_damaged_line_is_marked_as_lost_and_the_others_stay(tmp_path: Path, name: str) -> None:
    path, damage = tmp_path / "metrics.jsonl", _DAMAGED_LINES[name]
    lines = [_line(number) for number in range(1, _ROUNDS + 1)]
    lines[2:3] = [] if damage is None else [damage]
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(content)
    remark = MetricsFile(path, _ROUNDS).remark
    assert remark == (
        f"{path} was damaged (kept as metrics.jsonl.damaged); round 3 has no record any more, and a line that says so; "
        "training is not affected"
    )
    assert _rounds(path) == list(range(1, _ROUNDS + 1))
    assert path.read_text().splitlines()[2] == '{"round": 3, "lost": true}'
    assert [line.encode() for line in path.read_text().splitlines() if "lost" not in line] == [
        _line(number) for number in (1, 2, 4, 5, 6)
    ]
    assert [record["round"] for record in read_records(path)] == [1, 2, 4, 5, 6]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == content
    # Mended is mended: nothing more to say.
    assert MetricsFile(path, _ROUNDS).remark is None


def _no_file(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_text("")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "notes.txt").write_text("somebody's own")


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("damage", [_no_file, _empty, _folder, _binary, _dangling])
def test_a_file_that_is_gone_altogether_has_a_line_for_every_round_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "metrics.jsonl"
    _filled(path, _ROUNDS)
    damage(path)
    remark = mend(path, _ROUNDS)
    assert remark is not None
    assert "6 of 6 rounds have no record any more" in remark
    assert "\n" not in remark
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"round": number, "lost": True} for number in range(1, _ROUNDS + 1)
    ]
    tracker = MetricsFile(path, _ROUNDS)
    tracker.round_done(_record(_ROUNDS + 1))
    assert _rounds(path) == list(range(1, _ROUNDS + 2))
    assert [record["round"] for record in read_records(path)] == [_ROUNDS + 1]


def test_what_was_damaged_before_is_kept_beside_what_is_damaged_now(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in range(3):
        path.write_text(f"damage {number}\n")
        assert mend(path, 2) is not None
    assert [(tmp_path / f"metrics.jsonl.damaged{end}").read_text() for end in ("", "1", "2")] == [
        "damage 0\n",
        "damage 1\n",
        "damage 2\n",
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_ends_a_run_or_leaves_fewer_lines_than_rounds(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "metrics.jsonl"
    content = bytearray(b"".join(_line(number) + b"\n" for number in range(1, _ROUNDS + 1)))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 400)))
        content[start:end] = data.draw(st.binary(max_size=20))
    path.write_bytes(content)
    done = data.draw(st.integers(0, _ROUNDS + 3))
    MetricsFile(path, done).round_done(_record(done + 1))
    assert _rounds(path) == list(range(1, done + 2))
    assert json.loads(path.read_bytes().splitlines()[-1]) == json.loads(_line(done + 1))
    assert {record["round"] for record in read_records(path)} <= set(range(1, done + 2))
    assert last_share(path) == 0


def test_a_run_that_stopped_before_its_evaluation_has_one_line_for_it_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    first.round_done(_record(1))
    first.round_done(dataclasses.replace(_record(2), probes=(), owed=True))
    second = MetricsFile(path, 2)
    assert second.remark is None
    second.round_done(_record(2))
    second.round_done(_record(3))
    assert path.read_bytes() == b"".join(_line(number) + b"\n" for number in (1, 2, 3))


def test_how_far_a_run_is_comes_from_the_last_line_that_says_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_share(path) == 0
    path.write_text('{"done": 0.25}\n{"done": 0.5}\n[]\n{"done": "x"}\n{"round": 3, "lost": true}\n{"done": 0.7')
    assert last_share(path) == 0.5
    path.write_text('{"done": 1e400}\n{"done": -3}\n')
    assert last_share(path) == 0
