"""``compare-methods`` from the file of a small study to its table."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.commands import Outcome, called
from helpers.images.pictures import write_pictures
from helpers.processes import wait_until
from helpers.runs.federation import micro_config
from helpers.runs.studies import BUDGETS as _BUDGETS
from helpers.runs.studies import tiny_study as _study
from helpers.runs.studies import write_study as _write
from matplotlib.image import imread

from fedpareto.search.comparison.cli import main
from fedpareto.search.comparison.results.outcome import read_outcome
from fedpareto.search.comparison.studies.study import Trial
from fedpareto.search.comparison.studies.yardsticks import Yardstick
from fedpareto.search.comparison.trials import check_same, share_done, share_of_all
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig, write_config
from fedpareto.training.runs.folder import METRICS, locked


def _compare(*arguments: object) -> Outcome:
    return called(main, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Outcome]:
    """Return a study's file and its folder after it was run."""
    folder = tmp_path_factory.mktemp("study")
    path, output = _write(folder, _study(folder)), folder / "out"
    return path, output, _compare("--config", path, "--output", output, "--jobs", 2)


Finished = tuple[Path, Path, Outcome]


@pytest.mark.slow
def test_a_study_ends_with_a_table_a_plot_and_the_next_command(finished: Finished) -> None:
    _, output, done = finished
    assert done.code == 0, done.err
    parsed = list(csv.DictReader((output / "table.csv").read_text().splitlines()))
    assert [(line["method"], int(line["budget_macs"])) for line in parsed] == [
        (label, budget) for label in ("deepfednas", "cotrain") for budget in _BUDGETS
    ]
    assert all(0 < float(line["accuracy_mean"]) < 1 and line["seeds"] == "2" for line in parsed)
    assert all(float(line["macs"]) <= float(line["budget_macs"]) for line in parsed)
    assert "deepfednas" in (output / "table.md").read_text()
    assert "deepfednas − cotrain" in (output / "table.md").read_text()
    assert "deepfednas − cotrain" in done.out
    assert imread(output / "accuracy.png").shape[0] > 300
    assert f"next: search-subnet --run {output / 'runs' / 'deepfednas-seed0'}" in done.err


@pytest.mark.slow
def test_methods_computed_the_same_to_within_a_hundredth(finished: Finished) -> None:
    _, output, _ = finished
    for label in ("deepfednas", "cotrain"):
        for seed in (0, 1):
            outcome = read_outcome(output / "results" / f"{label}-seed{seed}.json")
            records = [json.loads(line) for line in (output / "runs" / f"{label}-seed{seed}" / METRICS).open()]
            assert outcome.compute == sum(record["compute"] for record in records)
            assert abs(outcome.compute - 240_000_000) <= 2_400_000
            assert outcome.bytes_up == sum(record["bytes_up"] for record in records)
            assert outcome.rounds == len(records)


@pytest.mark.slow
def test_what_is_finished_is_not_run_again_and_a_seed_more_is_added(finished: Finished, tmp_path: Path) -> None:
    path, output, _ = finished
    before = {file: file.stat().st_mtime_ns for file in (output / "results").iterdir()}
    study = yaml.safe_load(path.read_text())
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({**study, "methods": {"deepfednas": {}}, "seeds": [0, 1, 2]}, sort_keys=False))
    done = _compare("--config", more, "--output", output)
    assert done.code == 0, done.err
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {file.stem for file in (output / "results").iterdir()} - {file.stem for file in before} == {
        "deepfednas-seed2",
    }
    assert {line["seeds"] for line in csv.DictReader((output / "table.csv").read_text().splitlines())} == {"3"}


@pytest.mark.slow
def test_a_trial_of_other_settings_is_refused(finished: Finished, tmp_path: Path) -> None:
    path, output, _ = finished
    study = yaml.safe_load(path.read_text())
    study["methods"]["cotrain"] = {"client": {"lr": 0.5}}
    study["methods"]["deepfednas"] = {"client": {"lr": 0.5}}
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(study, sort_keys=False))
    outcome = output / "results" / "cotrain-seed0.json"
    kept = outcome.read_text()
    outcome.unlink()
    done = _compare("--config", changed, "--output", output)
    outcome.write_text(kept)
    assert done.code == 2
    assert "was trained with other settings than the study has now" in done.err


@pytest.mark.slow
def test_runs_are_measured_again_for_a_budget_that_was_added(finished: Finished, tmp_path: Path) -> None:
    path, done_before, _ = finished
    study, output = yaml.safe_load(path.read_text()), Path(shutil.copytree(done_before, tmp_path / "out"))
    study["budgets"] = [*study["budgets"], "90k"]
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(study, sort_keys=False))
    (output / "price.csv").write_text("of a study with yardsticks")
    rounds = (output / "runs" / "cotrain-seed0" / METRICS).read_text()
    done = _compare("--config", more, "--output", output)
    assert done.code == 0, done.err
    for label in ("deepfednas", "cotrain"):
        budgets = [network.budget for network in read_outcome(output / "results" / f"{label}-seed0.json").networks]
        assert budgets == sorted([*_BUDGETS, 90_000])
    assert (output / "runs" / "cotrain-seed0" / METRICS).read_text() == rounds
    assert not (output / "price.csv").exists()


@pytest.mark.slow
def test_results_of_other_settings_are_refused_too(finished: Finished, tmp_path: Path) -> None:
    path, output, _ = finished
    study = yaml.safe_load(path.read_text())
    study["run"]["client"]["lr"] = 0.5
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(study, sort_keys=False))
    done = _compare("--config", changed, "--output", output)
    assert done.code == 2
    assert "was trained with other settings than the study has now; restore them, or name" in done.err


def test_how_far_a_study_is_counts_runs_by_their_compute() -> None:
    config = RunConfig(compute="100M")
    linear = Trial("linear", 0, config, Yardstick("linear", None))
    share = Trial("share-1M", 0, dataclasses.replace(config, compute="50M"), Yardstick("share", 1_000_000))
    trials = [Trial("cotrain", 0, config), Trial("fedavg", 0, config), share, linear]
    assert share_of_all(trials, [1.0, 0.5, 0.0, 0.0]) == pytest.approx(150 / 250)
    assert share_of_all(trials, [1.0, 1.0, 1.0, 0.0]) == 1.0
    rounds = [Trial("a", seed, RunConfig(rounds=20)) for seed in range(2)]
    assert share_of_all(rounds, [0.5, 0.0]) == pytest.approx(0.25)
    assert share_of_all([linear], [1.0]) == 0.0


def test_a_trial_goes_on_with_images_that_have_moved(tmp_path: Path) -> None:
    config = micro_config(tmp_path, data=DataConfig(name="imagefolder", root="here"))
    write_config(tmp_path / "cotrain-seed0.yaml", config)
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, root="there"))
    check_same(Trial("cotrain", 0, moved), tmp_path)
    others = dataclasses.replace(config, data=dataclasses.replace(config.data, name="cifar10"))
    with pytest.raises(UserError, match="was trained with other settings than the study has now"):
        check_same(Trial("cotrain", 0, others), tmp_path)


@pytest.mark.slow
def test_the_others_compute_as_much_as_the_reference_did(tmp_path: Path) -> None:
    study = _study(tmp_path, seeds=[3], reference="deepfednas")
    study["run"]["compute"] = None
    study["run"]["rounds"] = 2
    output = tmp_path / "out"
    done = _compare("--config", _write(tmp_path, study), "--output", output)
    assert done.code == 0, done.err
    first, other = (read_outcome(output / "results" / f"{label}-seed3.json") for label in ("deepfednas", "cotrain"))
    assert first.rounds == 2
    assert abs(other.compute / first.compute - 1) <= 0.01


@pytest.mark.slow
def test_runs_that_cannot_meet_the_compute_are_left_out_of_the_table_and_end_in_an_error(tmp_path: Path) -> None:
    # A step of each client is more than a hundredth of it.
    study = _study(tmp_path, seeds=[0], methods={"deepfednas": {}})
    study["run"]["compute"] = "500K"
    done = _compare("--config", _write(tmp_path, study), "--output", tmp_path / "out")
    assert done.code == 2
    assert "left out: deepfednas with seed 0 trained" in done.err
    assert "more than the 500K of the study" in " ".join(done.err.split())
    assert done.err.splitlines()[-1].startswith("compare-methods: error: 1 of 1 run left out of the table")
    assert not (tmp_path / "out" / "table.csv").exists()


@pytest.mark.slow
def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    study = _study(tmp_path, seeds=[0], methods={"deepfednas": {}})
    study["run"]["compute"] = "400M"
    path, output = _write(tmp_path, study), tmp_path / "out"
    program = "from fedpareto.search.comparison.cli import main; main()"
    command = [sys.executable, "-c", program, "--config", str(path), "--output", str(output)]
    metrics = output / "runs" / "deepfednas-seed0" / METRICS
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 143
    assert "the same command goes on where this one stopped\nnext: compare-methods --config " in errors
    assert "compare-methods: terminated" in errors
    # The trial has got the signal on, and left its lock.
    with locked(metrics.parent):
        assert "stopping at once" in (output / "runs" / "deepfednas-seed0.log").read_text()
    rounds = len(metrics.read_text().splitlines())
    assert share_done(metrics.parent) < 1
    done = _compare("--config", path, "--output", output)
    assert done.code == 0, done.err
    records = [json.loads(line)["round"] for line in metrics.open()]
    assert records == list(range(1, len(records) + 1))
    assert len(records) > rounds


@pytest.mark.slow
def test_a_trial_that_fails_says_why(tmp_path: Path) -> None:
    study = _study(tmp_path, seeds=[0], methods={"deepfednas": {}})
    study["run"]["clients"] = {"count": 500, "per_round": 3}
    done = _compare("--config", _write(tmp_path, study), "--output", tmp_path / "out")
    assert done.code == 2
    assert "deepfednas-seed0 failed: train-supernet: error: cannot split" in done.err


def test_a_budget_below_every_network_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    study = _study(tmp_path, budgets=["30k", "60k"])
    done = _compare("--config", _write(tmp_path, study), "--output", tmp_path / "out")
    assert done.code == 2
    assert "budgets has 30,000 MACs and the smallest network of micro 40,416; raise it" in done.err
    assert not (tmp_path / "out").exists()


def test_images_without_a_test_split_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    study = _study(tmp_path, seeds=[0])
    study["run"]["data"] |= {"name": "imagefolder", "root": str(write_pictures(tmp_path, {"train": {"a": 2}}))}
    done = _compare("--config", _write(tmp_path, study), "--output", tmp_path / "out")
    assert done.code == 2
    assert f"there is no folder {tmp_path / 'test'}, and test images were asked for" in done.err
    assert not (tmp_path / "out").exists()


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    done = _compare("--config", _write(tmp_path, _study(tmp_path)), "--jobs", 0)
    assert done.code == 2
    assert "jobs is 0; it must be at least 1" in done.err
