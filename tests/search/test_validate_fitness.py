import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.commands import check_refused, run_main
from helpers.networks.learned import drawn_terms
from helpers.networks.strategies import tiny_space
from helpers.runs.federation import finished_run
from helpers.runs.rankings import PLANTED, planted, write_accuracies

import fedpareto.cache.cli
import fedpareto.fitness.cli
import fedpareto.search.cli
import fedpareto.training.cli
from fedpareto.cache.cache_file import read_cache
from fedpareto.fitness.settings import load_settings
from fedpareto.search.ranking.cli import main
from fedpareto.search.ranking.fitting.weights import kendall_within
from fedpareto.search.ranking.measuring import measure
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.supernet.fitness_settings import settings_to_mapping
from fedpareto.training.runs.checkpoint import best_checkpoint
from fedpareto.training.runs.folder import read_run_cache, read_run_config, read_space


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def band(tmp_path: Path) -> Path:
    return write_accuracies(tmp_path / "band.jsonl", planted(tiny_space(), noise=0.02))


_FEW = ("--subnets", 8, "--bands", 2, "--band-width", 0.9)


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_what_cannot_be_written_or_fitted_is_refused_before_anything_is_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpareto.search.ranking.measuring.measure.open_simulated", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "accuracy.png").mkdir(parents=True)
    for output, words in ((tmp_path / "file", "is not a folder you may write to"), (tmp_path / "out", "is a folder")):
        refused = run_main(main, capsys, "--run", run, *_FEW, "--output", output)
        assert words in check_refused(refused, "validate-fitness")
    few = run_main(main, capsys, "--run", run, *_FEW, "--output", tmp_path / "new", "--fit")
    assert "--fit needs a band with 8 networks to fit on and 4 held out" in check_refused(few, "validate-fitness")
    assert not (tmp_path / "new").exists()


def test_subnets_of_a_run_are_measured_and_ranked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_main(main, capsys, "--run", run, *_FEW, "--output", tmp_path)
    assert done.code == 0
    assert done.err.endswith(
        f"next: validate-fitness --run {run} --subnets 8 --bands 2 --band-width 0.9 --output {tmp_path} --fit\n"
    )
    lines = [json.loads(line) for line in (tmp_path / "subnets.jsonl").read_text().splitlines()]
    assert lines[0]["format"] == "fedpareto-accuracies"
    assert lines[0]["checkpoint"] == best_checkpoint(run).name
    assert len(lines) == 9
    # Accuracies are those that the run's own evaluation gives: shares of its validation images.
    images = lines[0]["images"]
    assert all(line["accuracy"] * images == pytest.approx(round(line["accuracy"] * images)) for line in lines[1:])
    report = _report(tmp_path)
    assert (report["networks"], report["space"]) == (8, "micro")
    assert report["fitness"]["kind_weights"] == [1.0]
    assert sum(each["networks"] for each in report["bands"]) == 8
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on_to_the_same_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    run_main(main, capsys, "--run", run, *_FEW, "--output", whole)
    reading, left = measure._reading, [3]

    def some(*arguments: Any) -> Reading:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return reading(*arguments)

    monkeypatch.setattr(measure, "_reading", some)
    interrupted = run_main(main, capsys, "--run", run, *_FEW, "--output", halted)
    assert interrupted.code == 130
    assert "measured 3 of 8 subnets; the same command goes on" in interrupted.err
    assert len((halted / "subnets.jsonl").read_text().splitlines()) == 4
    left[0] = 5
    assert run_main(main, capsys, "--run", run, *_FEW, "--output", halted).code == 0
    assert (halted / "subnets.jsonl").read_bytes() == (whole / "subnets.jsonl").read_bytes()
    assert _report(halted) == _report(whole)
    # All are measured: nothing is run again, and other weights are judged on the same subnets.
    weights = tmp_path / "fitness.yaml"
    weights.write_text("block_penalty: 50\n")
    judged = run_main(main, capsys, "--run", run, *_FEW, "--output", halted, "--fitness", weights)
    assert judged.code == 0
    assert _report(halted)["fitness"]["block_penalty"] == 50
    assert _report(halted)["kendall"]["macs"] == _report(whole)["kendall"]["macs"]
    refused = run_main(main, capsys, "--run", run, *_FEW, "--output", halted, "--seed", 1)
    assert "was begun with seed 0, not 1" in check_refused(refused, "validate-fitness")


def test_subnets_lie_within_the_macs_of_the_runs_cache(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(main, capsys, "--run", run, *_FEW, "--output", tmp_path, "--images", 20)
    entries = read_run_cache(run, read_space(run)).entries
    for each in _report(tmp_path)["bands"]:
        assert entries[0].macs <= each["least_macs"] < each["most_macs"] <= entries[-1].macs
    header = json.loads((tmp_path / "subnets.jsonl").read_text().splitlines()[0])
    assert header["images"] == 20


@pytest.mark.slow
def test_fitted_weights_rank_better_and_go_into_the_other_commands(
    band: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The sample's bands are as wide as its networks: one for each quarter.
    arguments = ("--accuracies", band, "--space", "mobilenet-tiny", "--band-width", 0.99, "--fit")
    done = run_main(main, capsys, *arguments, "--output", tmp_path / "out")
    assert done.code == 0
    weights = tmp_path / "out" / "fitness.yaml"
    assert done.err.endswith(f"next: build-cache --space mobilenet-tiny --fitness {weights} --output cache.jsonl\n")
    fit = _report(tmp_path / "out")["fit"]
    taus = fit["held_out"]["kendall"]
    assert taus["fitness"]["within"]["value"] > taus["before"]["within"]["value"] + 0.3
    assert sorted([*fit["fitted_networks"], *fit["held_out_networks"]]) == list(range(80))
    space = tiny_space()
    settings = load_settings(str(weights), space)
    assert settings_to_mapping(settings) == fit["settings"]
    assert yaml.safe_load(weights.read_text()) == fit["settings"]

    built = tmp_path / "cache.jsonl"
    assert (
        run_main(
            fedpareto.cache.cli.main,
            capsys,
            "--space",
            "mobilenet-tiny",
            "--fitness",
            weights,
            "--output",
            built,
            "--solver",
            "exact",
            "--entries",
            5,
        ).code
        == 0
    )
    assert json.loads(built.read_text().splitlines()[0])["fitness"] == fit["settings"]
    found = run_main(
        fedpareto.search.cli.main,
        capsys,
        "--space",
        "mobilenet-tiny",
        "--fitness",
        weights,
        "--flops-budget",
        "3M",
        "--json",
    )
    assert found.code == 0
    assert json.loads(found.out)["certified"]


_LEARN = ("--fit", "--form", "blocks", "--fit-subnets", 48)


@pytest.mark.slow
def test_a_fitness_is_learned_from_a_run_judged_by_other_networks_and_searched(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_main(main, capsys, "--run", run, *_FEW, *_LEARN, "--output", tmp_path, "--test")
    assert done.code == 0
    weights = tmp_path / "fitness.yaml"
    assert f"--fitness {weights} --flops-budget" in done.err
    space = read_space(run)
    settings = load_settings(str(weights), space)
    assert settings.learned is not None
    report = _report(tmp_path)["fit"]
    assert (report["form"], report["held_out"]["networks"]) == ("blocks", 8)
    # A small space's frontiers may have fewer networks than are asked for that are not measured yet.
    assert 36 < report["fitted"] <= 48
    assert report["settings"] == settings_to_mapping(settings)
    assert set(report["held_out"]["kendall"]) == {"fitness", "before", "macs", "params", "blocks", "ceiling"}
    # Networks that are learned from are measured once, and none of them judges.
    files = ["subnets", "design", "found-1", "found-2", "found-3"]
    lines = [line for name in files for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()[1:]]
    measured = [json.dumps(json.loads(line)["architecture"]) for line in lines]
    assert len(measured) == len(set(measured)) == 8 + report["fitted"]
    # What is found is what the other commands find with the file.
    fitted = [each for each in report["found"] if each["form"] == "fitted fitness"]
    assert [each["budget"] for each in fitted] == [int(band["most_macs"]) for band in report["held_out"]["bands"]]
    assert all(set(each["accuracy"]) == {"validation", "test"} for each in fitted)
    budget = ("--flops-budget", fitted[-1]["budget"])
    found = run_main(fedpareto.search.cli.main, capsys, "--run", run, "--fitness", weights, *budget, "--json")
    assert found.code == 0
    answer = json.loads(found.out)
    assert answer["certified"]
    assert answer["architecture"] == fitted[-1]["architecture"]
    assert answer["validation_accuracy"] == fitted[-1]["accuracy"]["validation"]

    # All is measured: the same command measures nothing but what is found, and ends with the same.
    monkeypatch.setattr(measure, "_reading", None)
    assert run_main(main, capsys, "--run", run, *_FEW, *_LEARN, "--output", tmp_path, "--test").code == 0
    assert _report(tmp_path)["fit"] == report
    refused = run_main(main, capsys, "--run", run, *_FEW, *_LEARN[:-1], 52, "--output", tmp_path)
    assert "design.jsonl was begun with fit_subnets 48, not 52" in check_refused(refused, "validate-fitness")


def test_a_learned_fitness_goes_into_scores_caches_and_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, cached, trained = tmp_path / "fitness.yaml", tmp_path / "cache.jsonl", tmp_path / "run"
    space = read_space(run)
    settings = dataclasses.replace(space.fitness, learned=drawn_terms(space))
    weights.write_text(yaml.safe_dump(settings_to_mapping(settings)))
    named = ("--space", run / "space.yaml", "--fitness", weights)
    assert run_main(fedpareto.cache.cli.main, capsys, *named, "--output", cached, "--entries", 6).code == 0
    built = read_cache(cached, space)
    assert built.fitness == settings
    assert built.gaps == (0.0,) * len(built.entries)
    scored = run_main(fedpareto.fitness.cli.main, capsys, *named, cached, "--json")
    assert scored.code == 0
    lines = [json.loads(line)["fitness"] for line in scored.out.splitlines()]
    assert lines == pytest.approx([entry.fitness for entry in built.entries])
    config = read_run_config(run)
    again = ("--config", run / "config.yaml", "--cache", "null", "--fitness", weights, "--output", trained)
    assert config.cache is not None or config.fitness is None
    assert run_main(fedpareto.training.cli.main, capsys, *again, "--rounds", 1).code == 0
    assert read_run_cache(trained, space).fitness == settings
    other = run_main(
        fedpareto.search.cli.main, capsys, "--space", "mobilenet-tiny", "--fitness", weights, "--flops-budget", "3M"
    )
    assert "fitness.learned was fitted to another space than mobilenet-tiny" in check_refused(other, "search-subnet")


def test_a_fit_that_ranks_no_better_is_not_what_the_next_command_goes_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The fitness before ranks them without a fault.
    accuracies = write_accuracies(tmp_path / "perfect.jsonl", planted(tiny_space()))
    before = tmp_path / "before.yaml"
    before.write_text(yaml.safe_dump(settings_to_mapping(PLANTED)))
    arguments = ("--accuracies", accuracies, "--space", "mobilenet-tiny", "--band-width", 0.99, "--fit")
    done = run_main(main, capsys, *arguments, "--fitness", before, "--output", tmp_path / "out")
    assert done.code == 0
    assert "fitness.yaml ranks no better than the fitness before, which the next command goes on with" in done.out
    assert done.err.endswith(f"next: build-cache --space mobilenet-tiny --fitness {before} --output cache.jsonl\n")


def test_terms_are_learned_from_given_accuracies(
    band: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--accuracies", band, "--space", "mobilenet-tiny", "--band-width", 0.99, "--fit", "--form", "blocks")
    done = run_main(main, capsys, *arguments, "--output", tmp_path / "out")
    assert done.code == 0
    weights = tmp_path / "out" / "fitness.yaml"
    assert done.err.endswith(f"next: build-cache --space mobilenet-tiny --fitness {weights} --output cache.jsonl\n")
    fit = _report(tmp_path / "out")["fit"]
    assert fit["fitted"] + fit["held_out"]["networks"] == 80
    assert abs(fit["fitted"] - 40) <= 2
    assert "found" not in fit
    taus = fit["held_out"]["kendall"]
    assert taus["fitness"]["within"]["value"] > taus["before"]["within"]["value"]


def test_given_accuracies_are_ranked_by_given_weights(
    band: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "fitness.yaml"
    weights.write_text("entropy_weights: [0]\nblock_penalty: -1\ndepth_penalty: 0\nwidth_penalty: 0\n")
    done = run_main(
        main, capsys, "--accuracies", band, "--space", "mobilenet-tiny", "--fitness", weights, "--band-width", 0.5
    )
    assert done.code == 0
    report = _report(tmp_path / "band-validation")
    assert report["kendall"]["fitness"] == report["kendall"]["blocks"]
    assert "fit" not in report


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--space", "mobilenet-tiny"), "give either --run FOLDER, or --accuracies FILE with --space NAME"),
        (("--accuracies", "nowhere.jsonl", "--space", "mobilenet-tiny"), "cannot read nowhere.jsonl: No such file"),
        (("--accuracies", "nowhere.jsonl", "--space", "mobilenet-small"), "unknown space 'mobilenet-small'; valid: "),
        (("--run", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str) -> None:
    assert named in check_refused(run_main(main, capsys, *arguments), "validate-fitness")


def test_more_images_than_a_run_holds_out_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = run_main(main, capsys, "--run", run, *_FEW, "--output", tmp_path, "--images", 10**6)
    assert "--images is 1,000,000; " in check_refused(refused, "validate-fitness")
    assert not (tmp_path / "subnets.jsonl").exists()


def test_a_run_whose_images_are_with_its_clients_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(read_run_config(run), engine="flower")
    monkeypatch.setattr(measure, "read_run_config", lambda folder: config)
    assert "are with its clients" in check_refused(run_main(main, capsys, "--run", run, *_FEW), "validate-fitness")


def test_a_fit_of_a_ranking_by_chance_is_reported_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = planted(tiny_space())
    chance = dataclasses.replace(sample, accuracy=np.random.default_rng(0).random(len(sample)))
    path = write_accuracies(tmp_path / "band.jsonl", chance)
    done = run_main(main, capsys, "--accuracies", path, "--space", "mobilenet-tiny", "--band-width", 0.99, "--fit")
    assert done.code == 0
    found = _report(tmp_path / "band-validation")["fit"]["held_out"]["kendall"]["fitness"]["within"]
    assert found["low"] < 0.15
    assert kendall_within(chance, sample.space.fitness) < 0.3
