import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.runs.trackers import alone, record
from wandb.proto import wandb_internal_pb2

from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.trackers.wandb import WandbTracker, _curves

#: A transaction log is a header of 7 bytes, then blocks of 32 KiB of LevelDB's log format.
_HEADER, _BLOCK = 7, 32768
_LAST_PARTS = (1, 4)


def _messages(path: Path) -> Iterator[Any]:
    """Yield the records of a transaction log."""
    data, position, message = path.read_bytes(), _HEADER, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        length, part = struct.unpack_from("<HB", data, position + 4)
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if part in _LAST_PARTS:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record
            message = b""


def _finished_log(run: Path) -> list[Any]:
    """Return the records of the finished offline run in a folder."""
    # finish() returns before wandb's service has written the log; tearing the service down waits for it.
    wandb.teardown()
    (log,) = run.glob("wandb/offline-run-*/run-*.wandb")
    return list(_messages(log))


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_an_offline_run_holds_configuration_curves_plot_and_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone(monkeypatch, tmp_path / "home")
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "round-000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    config = config_to_mapping(RunConfig(rounds=2, seed=9))
    tracker = WandbTracker(run, "mine", "fedpareto-tests", "auto", config, "abc123")
    assert tracker.mode == "offline"
    tracker.client_done(1, 1, 2)
    tracker.round_done(dataclasses.replace(record(1, evaluated=False), tested={"stage0-width": 0.375}))
    tracker.round_done(dataclasses.replace(record(2), epsilon=3.25, delta=1e-5, clipped=0.5))
    tracker.checkpoint(checkpoint, ["best", "final"])
    tracker.close()
    assert f"wandb sync {run}/wandb/offline-run-*" in capfd.readouterr().err

    messages = _finished_log(run)
    started = next(message.run for message in messages if message.WhichOneof("record_type") == "run")
    assert (started.run_id, started.display_name, started.project) == ("abc123", "mine", "fedpareto-tests")
    recorded = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert {name: recorded[name] for name in config} == config

    first, second = [_values(message.history.item) for message in messages if message.HasField("history")]
    assert (first["_step"], second["_step"]) == (1, 2)
    assert {name: second[name] for name in second if name.split("/")[0] in ("train", "bytes")} == {
        "train/loss": 1.25,
        "train/lr": 0.05,
        "train/beta": 0.9,
        "bytes/up": 2000,
        "bytes/down": 4000,
        "bytes/whole_supernets": 10000,
        "bytes/evaluation_up": 30,
        "bytes/evaluation_down": 40,
    }
    assert (second["privacy/epsilon"], second["privacy/clipped_share"]) == (3.25, 0.5)
    assert not [name for name in first if name.startswith("privacy")]
    assert first["search/stage0-width"] == 0.375
    assert not [name for name in second if name.startswith("search")]
    assert second["failures"] == 4
    assert second["time/round_seconds"] == 2.0
    assert second["time/overhead_share"] == 0.05
    assert second["time/evaluation_seconds"] == 0.25
    assert second["validation/mean_accuracy"] == 0.5
    assert second["validation/accuracy_at_40.42K"] == 0.25
    assert second["validation/accuracy_at_146.5K"] == 0.75
    assert not [name for name in first if name.startswith(("validation", "pareto"))]
    assert second["curriculum/entries_trained._type"] == "histogram"
    assert second["curriculum/entries_trained.values"] == [3, 0, 2]
    assert second["pareto/table._type"] == "table-file"
    (table,) = run.glob("wandb/offline-run-*/files/media/table/pareto/table*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["MACs (M)", "params (M)", "accuracy"]
    assert content["data"] == [[0.040416, 0.002498, 0.25], [0.146464, 0.020954, 0.75]]
    plots = [_values(message.config.update) for message in messages if message.HasField("config")]
    assert [name for plot in plots for name in plot] == ["_wandb.visualize.pareto/plot"]

    logged = [
        message.request.log_artifact.artifact if message.HasField("request") else message.artifact
        for message in messages
        if message.HasField("artifact") or message.request.HasField("log_artifact")
    ]
    (artifact,) = [artifact for artifact in logged if artifact.type == "model"]
    assert artifact.name == "supernet-abc123"
    assert set(artifact.aliases) == {"best", "final", "latest"}
    assert [entry.path for entry in artifact.manifest.contents] == ["state.json"]


@pytest.mark.slow
def test_the_histogram_of_a_large_cache_is_logged_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)
    tracker = WandbTracker(tmp_path, "mine", "fedpareto-tests", "offline", {}, "large")
    try:
        tracker.round_done(record(1, trained=tuple(range(600)), evaluated=False))
    finally:
        tracker.close()
    (history,) = [_values(message.history.item) for message in _finished_log(tmp_path) if message.HasField("history")]
    assert sum(history["curriculum/entries_trained.values"]) == sum(range(600))


def test_what_a_private_run_withholds_has_no_curve() -> None:
    quiet = dataclasses.replace(
        record(3), train_loss=None, seconds=None, sgd_seconds=None, overhead_share=None, compute=0
    )
    told, curves = _curves(dataclasses.replace(record(3), compute=9)), _curves(quiet)
    withheld = {"train/loss", "compute/client_macs", "time/round_seconds", "time/overhead_share"}
    assert told.keys() - curves.keys() == withheld
    assert None not in curves.values()
