"""Results of an ablation's runs as files: read back, refused when they are of something else."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.runs.ablations import BUDGETS, read_levers, result

from fedpareto.search.recipes.ablation import Ablation, Planned, planned
from fedpareto.search.recipes.result import Reached, Result, given_settings, read_result, result_of, write_result
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.tracking import TrackingConfig


def _planned(folder: Path) -> tuple[Ablation, Planned]:
    ablation = read_levers(folder)
    return ablation, planned(ablation, "probe", ablation.recipes())[1]


def _result_of(run: Planned) -> Result:
    networks = [Reached(budget, budget - 5, 0.5) for budget in BUDGETS]
    given = given_settings(run.trial.config)
    return Result(run.setting, run.recipe.label, run.trial.seed, given, 3, 47_900_000, networks, "a machine")


def test_a_result_is_read_back(tmp_path: Path) -> None:
    _, run = _planned(tmp_path)
    path = tmp_path / "result.json"
    write_result(path, _result_of(run))
    assert read_result(path) == _result_of(run)
    assert result_of(path, run, BUDGETS) == _result_of(run)
    assert read_result(path).mean == 0.5
    assert read_result(path).accuracies == dict.fromkeys(BUDGETS, 0.5)


@pytest.mark.parametrize(
    "damage", ["{}", "[]", "", '{"accuracy": 2}', "not json"], ids=("empty", "list", "nothing", "other", "text")
)
def test_a_damaged_result_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(damage)
    with pytest.raises(UserError, match=r"result\.json is damaged; remove it, and the run is measured again") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_every_change_by_hand_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, result("equal", "slow", 0, 0.5))
    content = json.loads(path.read_text())
    content["networks"][0]["accuracy"] = 0.75
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        read_result(path)


def test_a_result_of_another_run_or_of_other_settings_is_refused(tmp_path: Path) -> None:
    _, run = _planned(tmp_path)
    path = tmp_path / "result.json"
    write_result(path, dataclasses.replace(_result_of(run), seed=7))
    with pytest.raises(UserError, match=r"is of slow in setting equal with seed 7; remove it"):
        result_of(path, run, BUDGETS)
    write_result(path, _result_of(run))
    other = read_levers(tmp_path, levers={"slow": {"client": {"lr": 0.02}}, "smooth": {"client": {"clip": 1.0}}})
    with pytest.raises(UserError, match=r"other settings .* \(client\.lr is 0\.02, it was 0\.01\); restore them"):
        result_of(path, planned(other, "probe", other.recipes())[1], BUDGETS)
    other = read_levers(tmp_path, probe=0.5)
    with pytest.raises(UserError, match=r"\(compute is 120000000, it was 48000000\)"):
        result_of(path, planned(other, "probe", other.recipes())[1], BUDGETS)


def test_other_budgets_are_measured_anew(tmp_path: Path) -> None:
    _, run = _planned(tmp_path)
    path = tmp_path / "result.json"
    write_result(path, _result_of(run))
    assert result_of(path, run, BUDGETS[:1]) is None


def test_where_things_are_and_what_is_reported_is_not_compared() -> None:
    here = RunConfig(data=DataConfig(name="imagefolder", root="here"), output="runs/a", seed=3)
    there = RunConfig(
        data=DataConfig(name="imagefolder", root="there"), output="b", seed=3, tracking=TrackingConfig("off")
    )
    assert given_settings(here) == given_settings(there) == {"data.name": "imagefolder", "seed": 3}
