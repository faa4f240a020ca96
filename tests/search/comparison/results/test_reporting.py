"""What a study writes of results that are there: tables, the price of sharing, and what is left out."""

import csv
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, smallest
from helpers.runs.studies import BUDGETS, measured, outcome_of, read_tiny
from matplotlib.image import imread

from fedpareto.search.comparison.results.outcome import MeasuredNetwork, write_outcome
from fedpareto.search.comparison.results.reporting import PAGE, PLOT, PRICE, TABLE, outcome_path, report
from fedpareto.search.comparison.studies.study import Study, Trial


def _results(study: Study, folder: Path, computes: dict[str, int], skipped: tuple[str, ...] = ()) -> None:
    """Write an outcome of every trial but those skipped, with as much compute as its label is given, or 240M."""
    for number, trial in enumerate(study.trials):
        if trial.name not in skipped:
            networks = _networks(trial, 0.25 + number / 64)
            compute = computes.get(trial.label, 240_000_000)
            write_outcome(outcome_path(folder, trial), outcome_of(trial.label, trial.seed, networks, compute))


def _networks(trial: Trial, accuracy: float) -> list[MeasuredNetwork]:
    by_budget = [measured(budget, accuracy, net) for budget, net in zip(BUDGETS, (smallest(), largest()), strict=True)]
    if trial.yardstick is None:
        return by_budget
    if trial.yardstick.budget is None:
        return [MeasuredNetwork(7, 7, 8, accuracy, accuracy, 0.0, None)]
    return [network for network in by_budget if network.budget == trial.yardstick.budget]


def _table(folder: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for line in csv.DictReader((folder / TABLE).read_text().splitlines()):
        found.setdefault(line["method"], []).append(line)
    return found


_SHARES: dict[str, int] = {f"fedavg-{budget}-share": 120_000_000 for budget in ("60K", "120K")}


@pytest.mark.parametrize("methods", [{"cotrain": {}, "fedavg": {}}])
def test_yardsticks_are_rows_and_methods_of_one_network_have_no_price(tmp_path: Path, methods: dict[str, Any]) -> None:
    study, folder = read_tiny(tmp_path, yardsticks=True, methods=methods), tmp_path / "out"
    _results(study, folder, {**_SHARES, "linear": 0})
    assert report(study, folder) == 0
    table = _table(folder)
    assert list(table) == ["cotrain", "fedavg", "fedavg-alone", "fedavg-share", "fedavg-central", "linear"]
    assert {line["seeds"] for lines in table.values() for line in lines} == {"2"}
    assert [float(lines[0]["compute_macs"]) / 240e6 for lines in table.values()] == [1, 1, 2, 1, 2, 0]
    price = list(csv.DictReader((folder / PRICE).read_text().splitlines()))
    assert [(line["method"], line["less"]) for line in price[::2]] == [
        ("cotrain", "fedavg-alone"),
        ("cotrain", "fedavg-share"),
    ]
    assert all(line["clients_accuracy_mean"] for lines in table.values() for line in lines)
    assert imread(folder / PLOT).shape[0] > 300


def test_a_share_is_held_to_its_share_of_the_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, folder = read_tiny(tmp_path, yardsticks=["alone", "share"], seeds=[0]), tmp_path / "out"
    # As if both had been given all of it, or half of it.
    _results(study, folder, {"fedavg-60K-alone": 120_000_000, "fedavg-120K-share": 120_500_000})
    assert report(study, folder) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "fedavg-60K-alone with seed 0 trained 120M client MACs, 50.0% less than the 240M of the study" in said
    assert "fedavg-60K-share with seed 0 trained 240M client MACs, 100.0% more than the 120M of the study" in said
    table = _table(folder)
    assert [line["budget_macs"] for line in table["fedavg-share"]] == ["120000"]
    # Its row lacks a network, so that nothing can be said of all clients.
    assert table["fedavg-share"][0]["clients_accuracy_mean"] == ""


def test_what_is_finished_is_shown_while_the_rest_is_not(tmp_path: Path) -> None:
    study, folder = read_tiny(tmp_path, yardsticks=True), tmp_path / "out"
    later = tuple(trial.name for trial in study.trials if trial.yardstick and "120K" in trial.name)
    _results(study, folder, {**_SHARES, "linear": 0}, (*later, "linear-seed0", "linear-seed1", "cotrain-seed1"))
    assert report(study, folder) == 0
    table = _table(folder)
    assert list(table) == ["deepfednas", "cotrain", "fedavg-alone", "fedavg-share", "fedavg-central"]
    assert [line["seeds"] for line in table["cotrain"]] == ["1", "1"]
    assert [line["budget_macs"] for line in table["fedavg-alone"]] == ["60000"]


def test_yardsticks_whose_budgets_have_one_network_in_common_are_both_shown(tmp_path: Path) -> None:
    study = read_tiny(tmp_path, yardsticks=["alone"], seeds=[0], budgets=["120k", "130k"])
    folder = tmp_path / "out"
    for trial in study.trials:
        budgets = study.budgets if trial.yardstick is None else [trial.yardstick.budget or 0]
        networks = [measured(budget, 0.5, largest(MICRO)) for budget in budgets]
        write_outcome(outcome_path(folder, trial), outcome_of(trial.label, 0, networks))
        supernet = folder / "runs" / trial.name / "checkpoints" / "round-000001" / "supernet.safetensors"
        supernet.parent.mkdir(parents=True)
        supernet.write_bytes(b"the same")
    # Two methods that came to the same are one computation, as before.
    assert report(study, folder) == 1
    assert [line["budget_macs"] for line in _table(folder)["fedavg-alone"]] == ["120000", "130000"]


def test_a_study_without_yardsticks_tells_no_price(tmp_path: Path) -> None:
    study, folder = read_tiny(tmp_path), tmp_path / "out"
    _results(study, folder, {})
    assert report(study, folder) == 0
    assert not (folder / PRICE).exists()
    page = (folder / PAGE).read_text()
    assert "sharing" not in page
    header = "| method | seeds | accuracy at 60K MACs | accuracy at 120K MACs | accuracy over clients | sent up |"
    assert page.startswith(header)
