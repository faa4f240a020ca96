"""``compare-recipes`` from a file of levers to its tables: on image files of which there are no test images."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from helpers.commands import Outcome, called, check_refused, parsed, run_main
from helpers.processes import wait_until
from helpers.runs.ablations import BUDGETS, levers_file, micro_run, write_levers
from helpers.runs.federation import micro_space, write_two_classes

from fedpareto.search.comparison.results.summary import MeanStd
from fedpareto.search.recipes.cli import main
from fedpareto.search.recipes.result import Result, read_result, write_result
from fedpareto.training.runs.folder import METRICS, locked
from fedpareto.training.trackers.metrics_file import last_share

_PROGRAM = [sys.executable, "-c", "from fedpareto.search.recipes.cli import main; main()"]


def _ablation(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return an ablation whose base learns nothing; one lever does, the other does not."""
    root = write_two_classes(folder / "images")
    shutil.rmtree(root / "test")
    run = micro_run(folder, micro_space(classes=2))
    run["data"] |= {"name": "imagefolder", "root": str(root), "validation": 0.25}
    run["client"] |= {"batch_size": 4, "lr": 1e-6}
    run["compute"] = "100M"
    levers = {"rate": {"client": {"lr": 0.05}}, "smooth": {"client": {"label_smoothing": 0.1}}}
    own: dict[str, Any] = {"settings": {"equal": run}, "seeds": [0], "levers": levers, "probe": 0.5}
    return levers_file(folder, **{**own, "together": False, **changes})


def _compare(*arguments: object) -> Outcome:
    return called(main, *arguments)


class Finished(NamedTuple):
    """An ablation's file, its folder after it was run, and what the command said."""

    path: Path
    output: Path
    done: Outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("levers")
    path, output = write_levers(folder, _ablation(folder)), folder / "out"
    return Finished(path, output, _compare("--config", path, "--output", output, "--jobs", 2))


def _result(output: Path, stage: str, recipe: str) -> Result:
    return read_result(output / stage / "results" / f"equal.{recipe}-seed0.json")


@pytest.mark.slow
def test_only_what_survives_the_probe_is_trained_with_the_whole_compute(finished: Finished) -> None:
    assert finished.done.code == 0, finished.done.err
    for stage, recipes, compute in (("probe", ["base", "rate", "smooth"], 50e6), ("full", ["base", "rate"], 100e6)):
        results = sorted((finished.output / stage / "results").iterdir())
        assert [path.name for path in results] == [f"equal.{recipe}-seed0.json" for recipe in recipes]
        for recipe in recipes:
            found = _result(finished.output, stage, recipe)
            assert abs(found.compute / compute - 1) <= 0.01
            assert [network.budget for network in found.networks] == list(BUDGETS)
            assert all(network.macs <= network.budget for network in found.networks)
            metrics = finished.output / stage / "runs" / f"equal.{recipe}-seed0" / METRICS
            assert found.compute == sum(json.loads(line)["compute"] for line in metrics.open())
    assert "survived the probe: rate (in points, at least 0.5 above" in finished.done.err


@pytest.mark.slow
def test_tables_have_the_differences_of_the_results(finished: Finished) -> None:
    lines = list(csv.DictReader((finished.output / "table.csv").read_text().splitlines()))
    for stage, recipes in (("probe", ["rate", "smooth"]), ("full", ["rate"])):
        base = _result(finished.output, stage, "base")
        for recipe in recipes:
            own = _result(finished.output, stage, recipe)
            direct = sum(own.accuracies[budget] - base.accuracies[budget] for budget in BUDGETS) / len(BUDGETS)
            of_recipe = [line for line in lines if (line["stage"], line["recipe"]) == (stage, recipe)]
            (mean,) = [line for line in of_recipe if line["setting"] == "all"]
            assert float(mean["difference_mean"]) == pytest.approx(direct)
            assert mean["survived"] == ("true" if direct >= 0.005 else "false")
            points = MeanStd(direct, 0.0, 1).in_points("+")
            assert f"| {recipe} | {points} | {points} |" in (finished.output / "table.md").read_text()
            assert points in finished.done.out


@pytest.mark.slow
def test_it_ends_with_the_command_that_trains_by_the_best_recipe(finished: Finished) -> None:
    (line,) = [line[6:] for line in finished.done.err.splitlines() if line.startswith("next: ")]
    found = parsed(line)
    assert found is not None
    # A recipe that gains is better than the base, which is what is left otherwise.
    assert (found.client.lr, found.compute) == (0.05, "100M")


@pytest.mark.slow
def test_validation_images_decide_and_paired_runs_begin_alike(finished: Finished) -> None:
    runs = [finished.output / "probe" / "runs" / f"equal.{recipe}-seed0" for recipe in ("base", "rate", "smooth")]
    assert len({(run / "partition.json").read_bytes() for run in runs}) == 1
    # The first line says when the cache was made.
    assert len({(run / "cache.jsonl").read_text().partition("\n")[2] for run in runs}) == 1
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert [config.pop("client")["lr"] for config in configs] == [1e-6, 0.05, 1e-6]
    assert len({json.dumps({**config, "output": None, "cache": None, "space": None}) for config in configs}) == 1


@pytest.mark.slow
def test_only_a_result_that_is_gone_is_made_again_and_alike(finished: Finished) -> None:
    kept = {path: path.stat().st_mtime_ns for path in finished.output.glob("*/results/*.json")}
    gone = finished.output / "probe" / "results" / "equal.rate-seed0.json"
    content = gone.read_text()
    gone.unlink()
    shutil.rmtree(finished.output / "probe" / "runs" / "equal.rate-seed0")
    tables = [(finished.output / name).read_text() for name in ("table.csv", "table.md")]
    done = _compare("--config", finished.path, "--output", finished.output)
    assert done.code == 0, done.err
    after = {path: path.stat().st_mtime_ns for path in finished.output.glob("*/results/*.json")}
    assert after.keys() == kept.keys()
    assert [path for path in kept if after[path] != kept[path]] == [gone]
    assert gone.read_text() == content
    assert [(finished.output / name).read_text() for name in ("table.csv", "table.md")] == tables


@pytest.mark.slow
def test_a_result_of_other_settings_is_refused(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = yaml.safe_load(finished.path.read_text())
    fields["levers"]["smooth"]["client"]["label_smoothing"] = 0.2
    changed = write_levers(tmp_path, fields)
    done = run_main(main, capsys, "--config", changed, "--output", finished.output)
    assert done.code == 2
    assert "with other settings than the file of levers has now (client.label_smoothing is 0.2, it was 0.1)" in done.err
    assert done.err.count("compare-recipes: error:") == 1


@pytest.mark.slow
def test_an_interrupted_ablation_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    fields = _ablation(tmp_path, levers={"rate": {"client": {"lr": 0.05}}}, keep=100)
    fields["settings"]["equal"]["compute"] = "240M"
    path, output = write_levers(tmp_path, fields), tmp_path / "out"
    command = [*_PROGRAM, "--config", str(path), "--output", str(output), "--jobs", "2"]
    runs = [output / "probe" / "runs" / f"equal.{recipe}-seed0" for recipe in ("base", "rate")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: all((run / METRICS).exists() and (run / METRICS).read_text() for run in runs), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert f"the same command goes on where this one stopped\nnext: compare-recipes --config {path} " in errors
    for run in runs:
        # It has left its lock.
        with locked(run):
            assert last_share(run / METRICS) < 1
    done = _compare(*command[3:])
    assert done.code == 0, done.err
    assert "survived the probe: no recipe" in done.err
    assert not (output / "full").exists()
    for run in runs:
        rounds = [json.loads(line)["round"] for line in (run / METRICS).open()]
        assert rounds == list(range(1, len(rounds) + 1))


@pytest.mark.parametrize("off", [0.98, 1.02])
@pytest.mark.slow
def test_runs_that_miss_the_compute_are_left_out_and_end_in_an_error(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], off: float
) -> None:
    shutil.copytree(finished.output, tmp_path / "out")
    path = tmp_path / "out" / "probe" / "results" / "equal.base-seed0.json"
    write_result(path, dataclasses.replace(read_result(path), compute=round(off * 50e6)))
    done = run_main(main, capsys, "--config", finished.path, "--output", tmp_path / "out")
    assert done.code == 2
    assert "left out: base in setting equal with seed 0 trained" in done.err
    assert f"2.0% {'more' if off > 1 else 'less'} than the 50M of the study" in done.err
    assert done.err.splitlines()[-1].startswith("compare-recipes: error: 1 run left out, as said above")
    # Nothing stands beside the base, so nothing survives.
    assert "survived the probe" not in done.err
    assert {line["stage"] for line in csv.DictReader((tmp_path / "out" / "table.csv").open())} == {"probe"}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"budgets": ["30k"]}, (), "budgets has 30,000 MACs and the smallest network of micro 40,416; raise it"),
        ({}, ("--jobs", 0), "jobs is 0; it must be at least 1"),
        ({"levers": {}}, (), "levers must be a mapping of names"),
    ],
    ids=("budget", "jobs", "levers"),
)
def test_mistakes_are_refused_before_anything_is_trained(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    options: tuple[object, ...],
    message: str,
) -> None:
    path = write_levers(tmp_path, levers_file(tmp_path, **changes))
    done = run_main(main, capsys, "--config", path, "--output", tmp_path / "out", *options)
    assert message in check_refused(done, "compare-recipes")
    assert not (tmp_path / "out").exists()
