"""From a trained run to what a device gets, through the command."""

import csv
import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import Outcome, check_refused, run_main
from helpers.networks.latency import random_times
from helpers.runs.federation import finished_run, micro_space

from fedpareto.cache.costs.latency.table import Conditions, LatencyTable, write_latency_table
from fedpareto.search.cli import main
from fedpareto.search.subnet import load_subnet, read_subnet_info
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.storage.digests import read_digests
from fedpareto.supernet.space import Norm, SearchSpace
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.data.batches import prepare
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.sources import load_images
from fedpareto.training.runs.folder import read_run_config, read_space

BUDGET = ("--flops-budget", "1M")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits, long enough to be better than chance."""
    # The largest network in every round: so few rounds do not grow to it.
    return finished_run(tmp_path_factory.mktemp("run"), rounds=12, method="deepfednas")


class Command:
    """``search-subnet --run`` with its report."""

    def __init__(self, capsys: pytest.CaptureFixture[str], run: Path) -> None:
        self.capsys, self.run = capsys, run

    def __call__(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, "--run", self.run, *arguments)

    def json(self, *arguments: object) -> dict[str, Any]:
        outcome = self(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        report: dict[str, Any] = json.loads(outcome.out)
        return report

    def error(self, *arguments: object) -> str:
        return check_refused(self(*arguments), "search-subnet")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], run: Path) -> Command:
    return Command(capsys, run)


def _measured(path: Path, space: SearchSpace, **changes: Any) -> Path:
    """Write a table as ``profile-device`` measures them here, but for some fields."""
    conditions = Conditions(
        space=space.name,
        machine=machine(),
        device="cpu",
        runtime="onnxruntime",
        threads=1,
        batch=1,
        clock="wall",
        versions={},
        interval=0.02,
        confidence=0.95,
        created="2026-01-01T00:00:00",
    )
    table = LatencyTable(random_times(space), dataclasses.replace(conditions, **changes))
    write_latency_table(path, table)
    return path


def test_clients_calibrate_a_subnet_as_well_as_the_server_does(command: Command) -> None:
    pooled, federated = (command.json(*BUDGET, "--calibration", method) for method in ("pooled", "federated"))
    assert pooled["calibration"] == {"method": "pooled", "clients": 6, "batches": 1, "images": 64}
    assert federated["calibration"] == {"method": "federated", "clients": 4, "batches": 4, "images": 64}
    assert federated["validation_accuracy"] == pytest.approx(pooled["validation_accuracy"], abs=0.15)
    assert federated["validation_accuracy"] > 0.3
    assert (
        "calibrated on the clients: 4 batches, 64 images of 4 clients"
        in command(*BUDGET, "--calibration", "federated").out
    )


def test_a_subnet_that_is_not_calibrated_says_so(command: Command) -> None:
    outcome = command(*BUDGET, "--calibration", "none")
    assert outcome.code == 0
    assert "not calibrated" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "none"])
def test_a_network_without_batchnorm_is_said_to_need_no_calibration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, norm: Norm
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(json.dumps(space_to_mapping(micro_space(norm=norm))))
    run = finished_run(tmp_path, space=str(space), cache=None, rounds=1)
    command = Command(capsys, run)
    for method in ((), ("--calibration", "none")):
        outcome = command(*BUDGET, *method)
        assert outcome.code == 0
        assert "without BatchNorm there is nothing to calibrate" in outcome.out
        assert "not calibrated" not in outcome.out
    assert command.json(*BUDGET)["calibration"] == {"method": "not needed"}
    assert command(*BUDGET, "--export", "torchscript", "--output", tmp_path / "subnet").code == 0


def test_the_bound_on_the_effectiveness_is_reported(command: Command, tmp_path: Path) -> None:
    bound = read_space(command.run).fitness.max_effectiveness
    page = tmp_path / "page.html"
    assert command.json(*BUDGET, "--report", page)["max_effectiveness"] == bound
    row = re.search(r"effectiveness ρ</th>.*?</tr>", page.read_text(), re.DOTALL)
    assert row is not None
    assert "no limit" not in row.group()


def test_what_a_run_cannot_give_is_refused_before_anything_is_searched(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpareto.search.cli.answer_budgets", None)
    export = (*BUDGET, "--calibration", "none", "--export", "torchscript", "--output", tmp_path / "subnet")
    assert "not calibrated" in command.error(*export)
    config = read_run_config(command.run)
    private = dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, clip=1.0))
    monkeypatch.setattr("fedpareto.training.runs.folder.read_run_config", lambda folder: private)
    assert "leave out --finetune-epochs" in command.error(*BUDGET, "--finetune-epochs", "1")


@pytest.mark.slow
def test_fine_tuning_is_reported_before_and_after_and_in_the_files(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "subnet"
    report = command.json(*BUDGET, "--finetune-epochs", "2", "--finetune-lr", "0.05", "--test", "--output", output)
    tuned = report["finetune"]
    assert (tuned["epochs"], tuned["lr"], tuned["clients"]) == (2, 0.05, 6)
    assert tuned["after"]["validation_accuracy"] == report["validation_accuracy"]
    assert tuned["after"]["test_accuracy"] == report["test_accuracy"]
    untouched = command.json(*BUDGET, "--test")
    assert tuned["before"] == {name: untouched[name] for name in ("validation_accuracy", "test_accuracy")}
    assert tuned["before"] != tuned["after"]
    network, info = load_subnet(output), read_subnet_info(output)
    test = load_images("digits", "data", "test", Preparation(8))
    with torch.inference_mode():
        hits = (network(prepare(test.loaded(), 8, info.normalisation)).argmax(1) == test.labels).float().mean()
    assert float(hits) == pytest.approx(report["test_accuracy"], abs=0.01)


@pytest.mark.slow
def test_an_export_is_written_beside_the_subnet_and_its_checks_are_reported(command: Command, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    output, space = tmp_path / "subnet", read_space(command.run)
    table = _measured(tmp_path / "table.json", space)
    limits = ("--latency-budget", "4ms", "--latency-table", table)
    report = command.json(*limits, "--export", "onnx", "--output", output)
    export = report["export"]
    assert Path(export["file"]) == output / "subnet.onnx"
    assert export["file_bytes"] == (output / "subnet.onnx").stat().st_size
    assert export["max_abs_error"] < 1e-4
    assert export["top1_agreement"] == 1.0
    assert export["validation_accuracy"] == pytest.approx(report["validation_accuracy"], abs=1e-9)
    assert export["predicted_ms"] == report["latency"] <= 4
    assert export["prediction_error"] == pytest.approx(report["latency"] / export["latency"]["ms"] - 1)
    session = onnxruntime.InferenceSession(str(output / "subnet.onnx"))
    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    (logits,) = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = load_subnet(output)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert read_subnet_info(output).report["export"] == export
    outcome = command(*limits, "--export", "onnx", "--output", tmp_path / "again")
    again = tmp_path / "again"
    assert f"next: python {again / 'deploy.py'} {again / 'subnet.onnx'} PICTURE" in outcome.err
    assert "the same class as the network on 100.00%" in outcome.out


def test_targets_of_a_run_each_have_a_folder(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text("small: {flops_budget: 60K}\nlarge: {flops_budget: 1M}\n")
    reports = command.json("--targets", path, "--output", tmp_path / "subnets")
    for name, report in reports.items():
        folder = tmp_path / "subnets" / name
        assert report["output"] == str(folder)
        assert sum(tensor.numel() for tensor in load_subnet(folder).parameters()) == report["params"]
        assert read_subnet_info(folder).report["validation_accuracy"] == report["validation_accuracy"]
    assert list(reports) == ["small", "large"]
    assert "validation" in command("--targets", path).out


def test_a_page_is_written_about_the_choice(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    table = _measured(tmp_path / "table.json", read_space(command.run))
    limits = ("--latency-budget", "4ms", "--latency-table", table)
    report = command.json(*limits, "--output", tmp_path / "subnet", "--report", page)
    assert report["page"] == str(page)
    text = page.read_text()
    start = text.index("{", text.index('type="application/json"'))
    embedded = json.loads(text[start : text.index("</script>", start)])
    assert embedded == {name: value for name, value in report.items() if name != "page"}
    assert f"search-subnet --run {command.run} --latency-budget 4ms" in text
    assert f"train-supernet --config {command.run / 'config.yaml'}" in text
    assert f"profile-device --run {command.run} --output {table} --runtime onnxruntime" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": "torch"}, "runtime: "),
        ({"machine": "a Raspberry Pi 5"}, "machine: "),
        ({"device": "NVIDIA Jetson"}, "device: "),
        ({"threads": 4}, "threads: "),
        ({"batch": 8}, "batch: "),
    ],
)
def test_a_table_that_says_nothing_about_the_export_is_refused(
    command: Command, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    table = _measured(tmp_path / "table.json", read_space(command.run), **changes)
    limits = ("--latency-budget", "4ms", "--latency-table", table)
    error = command.error(*limits, "--export", "onnx", "--output", tmp_path / "subnet")
    assert f"error: {words}" in error
    assert str(next(iter(changes.values()))) in error
    assert not (tmp_path / "subnet").exists()


@pytest.mark.slow
def test_a_table_of_another_machine_serves_an_export_that_is_not_compared(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    table = _measured(tmp_path / "table.json", read_space(command.run), machine="a Raspberry Pi 5")
    limits = ("--latency-budget", "4ms", "--latency-table", table)
    refused = command.error(*limits, "--export", "onnx", "--output", tmp_path / "subnet")
    assert "export without a comparison: --check-latency false" in refused
    report = command.json(*limits, "--export", "onnx", "--output", tmp_path / "subnet", "--check-latency", "false")
    assert "predicted_ms" not in report["export"]


def test_a_table_of_another_space_is_refused_by_the_search(command: Command, tmp_path: Path) -> None:
    other = micro_space(name="other", classes=77)
    table = _measured(tmp_path / "table.json", other)
    error = command.error("--latency-budget", "4ms", "--latency-table", table)
    assert f"error: space: {table} was measured for other" in error
    assert "blocks of micro" in error


def test_a_run_without_a_checkpoint_is_refused(command: Command, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(command.run, copy)
    shutil.rmtree(copy / "checkpoints")
    command.run = copy
    assert "checkpoint" in command.error(*BUDGET, "--export", "onnx", "--output", tmp_path / "subnet")
    assert not (tmp_path / "subnet").exists()


@pytest.mark.slow
def test_a_subnet_that_is_not_calibrated_is_exported_only_when_asked_for(command: Command, tmp_path: Path) -> None:
    export = (*BUDGET, "--calibration", "none", "--export", "onnx", "--output", tmp_path / "subnet")
    assert "not calibrated" in command.error(*export)
    assert not (tmp_path / "subnet").exists()
    assert command(*export, "--allow-uncalibrated").code == 0
    assert (tmp_path / "subnet" / "subnet.onnx").exists()


def test_a_missing_extra_is_named_before_anything_is_searched(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = command.error(*BUDGET, "--export", "onnx", "--output", tmp_path / "subnet")
    assert "pip install 'fedpareto[export]'" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--export", "onnx"), "--export needs a folder to write to: give --output FOLDER"),
        (("--export", "tflite", "--output", "x"), "export"),
        (("--finetune-epochs", "-1"), "finetune_epochs is -1"),
        (("--finetune-lr", "0"), "finetune_lr is 0"),
        (("--calibration", "some"), "calibration"),
        (("--report", "page.pdf"), "cannot write a page to page.pdf; name a .html file"),
        (("--export", "torchscript", "--precision", "int8", "--output", "x"), "int8"),
        (("--export", "onnx", "--threads", "0", "--output", "x"), "threads is 0"),
        (("--batch", "0"), "batch is 0"),
    ],
)
def test_bad_options_are_refused_in_one_line(command: Command, arguments: tuple[str, ...], words: str) -> None:
    assert words in command.error(*BUDGET, *arguments)


@pytest.mark.parametrize("option", [("--export", "onnx"), ("--finetune-epochs", "1")])
def test_what_needs_weights_needs_a_run(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "micro.yaml"
    space.write_text(json.dumps(space_to_mapping(micro_space())))
    outcome = run_main(main, capsys, "--space", space, *BUDGET, *option, "--output", tmp_path / "x")
    assert f"{option[0]} needs trained weights: give --run FOLDER" in check_refused(outcome, "search-subnet")


def test_a_page_that_exists_is_refused_before_the_search(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert "exists; remove it" in command.error(*BUDGET, "--report", page)
    assert page.read_text() == "mine"


def test_the_report_has_measures_and_the_files_of_the_confusion_matrix(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "subnet"
    report = command.json(*BUDGET, "--test", "--confusion", "--output", folder)
    assert {"confusion.csv", "confusion.png", "confusion-test.csv", "confusion-test.png"} <= set(os.listdir(folder))
    assert read_digests(folder).keys() >= {"confusion.csv", "confusion.png"}
    header, *rows = list(csv.reader((folder / "confusion-test.csv").open(encoding="utf-8")))
    classes = load_images("digits", "", "test", Preparation(8, 3)).classes
    assert header == ["class", *classes, "recall"]
    counts = np.array([[int(cell) for cell in row[1:-1]] for row in rows])
    assert counts.trace() / counts.sum() == pytest.approx(report["test_accuracy"])
    assert counts.sum() == report["test_interval"]["images"]
    recalls = counts.diagonal() / counts.sum(axis=1)
    assert [float(row[-1]) for row in rows] == pytest.approx(recalls.tolist(), abs=1e-6)
    assert report["test_measures"]["balanced"] == pytest.approx(recalls.mean())
    assert list(report["test_measures"]["recall"]) == list(classes)
    assert report["test_interval"]["low"] < report["test_accuracy"] < report["test_interval"]["high"]


def test_people_see_the_interval_and_the_balanced_accuracy(command: Command) -> None:
    outcome = command(*BUDGET)
    assert re.search(r"validation accuracy +│ +\d+\.\d\d% \(\d+\.\d\d–\d+\.\d\d\)", outcome.out)
    assert "validation balanced accuracy" in outcome.out


def test_a_confusion_matrix_needs_a_folder(command: Command) -> None:
    assert "--output" in command.error(*BUDGET, "--confusion")
