"""What an ablation ends with: the best recipe, and the command that trains by it."""

import dataclasses
import shlex
from pathlib import Path

import pytest
from helpers.commands import parsed
from helpers.runs.ablations import read_levers

from fedpareto.search.comparison.results.summary import MeanStd
from fedpareto.search.recipes.ablation import BASE, Ablation, Recipe, StageName, planned
from fedpareto.search.recipes.judging import Verdict
from fedpareto.search.recipes.outcome import best_recipe, training_command
from fedpareto.search.recipes.stages import Standing
from fedpareto.training.config.run import write_config


def _standings(ablation: Ablation, gains: dict[str, float], stage: StageName = "full") -> list[Standing]:
    recipes = {recipe.name: recipe for recipe in ablation.recipes()}
    judged = [Verdict(recipes[name], {}, MeanStd(gain, 0.0, 1), gain > 0) for name, gain in gains.items()]
    found = [Verdict(recipes[BASE], {}, None, None), *judged]
    probe = Standing("probe", list(recipes.values()), [], [])
    return [dataclasses.replace(probe, verdicts=found)] if stage == "probe" else [probe, Standing(stage, [], found, [])]


@pytest.mark.parametrize(
    ("gains", "best"),
    [
        ({"slow": 0.01, "smooth": 0.02, "together": 0.015}, "smooth"),
        ({"slow": 0.01, "together": 0.03}, "together"),
        ({"slow": -0.01, "smooth": 0.0}, "base"),
        ({}, "base"),
    ],
    ids=str,
)
def test_the_best_recipe_is_that_of_the_greatest_gain_at_the_whole_compute(
    tmp_path: Path, gains: dict[str, float], best: str
) -> None:
    ablation = read_levers(tmp_path)
    assert best_recipe(_standings(ablation, gains)).name == best
    assert best_recipe(_standings(ablation, gains, "probe")).name == "base"


def _base_file(folder: Path, ablation: Ablation, stage: StageName) -> Path:
    base = planned(ablation, stage, [Recipe(BASE, ())])[0]
    path = folder / stage / "runs" / "equal.base-seed0.yaml"
    path.parent.mkdir(parents=True)
    write_config(path, base.trial.config)
    return path


def test_the_command_is_the_base_with_what_the_best_recipe_changes(tmp_path: Path) -> None:
    levers = {
        "slow": {"client": {"lr": 0.01}, "server": {"weight_by_examples": True}},
        "smooth": {"client": {"label_smoothing": 0.1}},
    }
    ablation = read_levers(tmp_path, levers=levers)
    config = _base_file(tmp_path, ablation, "full")
    line = training_command(ablation, tmp_path, _standings(ablation, {"slow": 0.01, "together": 0.03}), None)
    assert line.startswith(f"train-supernet --config {config} --output runs/tiny-equal --tracking.progress true ")
    assert shlex.split(line)[7:] == [
        *("--client.lr", "0.01", "--client.label-smoothing", "0.1", "--server.weight-by-examples", "true")
    ]
    found = parsed(line)
    assert found is not None
    assert (found.client.lr, found.client.label_smoothing, found.server.weight_by_examples) == (0.01, 0.1, True)
    assert (found.compute, found.output, found.tracking.progress) == ("240M", "runs/tiny-equal", True)


def test_without_a_survivor_the_command_is_the_base_at_the_whole_compute(tmp_path: Path) -> None:
    ablation = read_levers(tmp_path)
    _base_file(tmp_path, ablation, "probe")
    line = training_command(ablation, tmp_path, _standings(ablation, {"slow": -0.01}, "probe"), "images")
    assert shlex.split(line)[7:] == ["--compute", "240M", "--data.root", "images"]
    found = parsed(line)
    assert found is not None
    assert (found.compute, found.client.lr, found.data.root) == ("240M", 0.05, "images")
