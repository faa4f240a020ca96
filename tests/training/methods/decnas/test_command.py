"""``train-supernet --method decnas`` from the command line."""

import json
from pathlib import Path

import pytest
from helpers.commands import Outcome, check_refused, run_main
from helpers.runs.federation import MICRO, arguments_of, micro_config, read_metrics

from fedpareto.cache.entries import make_entry
from fedpareto.fitness.cli import main as score_subnet
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.training.cli import main
from fedpareto.training.config.methods import DecNasConfig

_SETTINGS = DecNasConfig(budget="110K", step=0.15, drop_after=1, least_rounds=1, most_rounds=2)


def _train(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> Outcome:
    config = micro_config(folder, rounds=2, method="decnas", decnas=_SETTINGS)
    return run_main(main, capsys, *arguments_of(config), *arguments)


@pytest.mark.slow
def test_the_command_ends_with_a_network_within_the_budget_and_what_the_search_has_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _train(capsys, tmp_path)
    assert outcome.code == 0, outcome.err
    run = tmp_path / "run"
    assert "a search down to 110K MACs, then 2 rounds of 3 from 6 clients" in " ".join(outcome.err.split())
    found = architecture_from_json(json.loads((run / "architecture.json").read_text()))
    macs = make_entry(MICRO, found).macs
    assert macs <= 110_000
    saved = json.loads((run / "accounting.json").read_text())["saved"]
    assert "all candidates on all clients" in outcome.out
    assert f"{saved['bytes_up']:.1%}" in outcome.out
    assert f"{macs:,}" in outcome.out
    assert f"next: search-subnet --run {run} --architecture {run}/architecture.json" in outcome.err
    score = run_main(score_subnet, capsys, "--space", run / "space.yaml", run / "architecture.json")
    assert score.code == 0
    records = read_metrics(run)
    assert records[0]["tested"].keys() >= {"current"}
    assert records[-1]["tested"] == {}
    # Resumed, the finished run says all of it again.
    again = run_main(main, capsys, "--resume", run)
    assert again.code == 0
    assert f"is finished after {len(records)} rounds" in again.err
    assert f"{saved['compute']:.1%}" in again.out


def test_a_search_that_compute_ends_says_that_the_budget_is_not_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _train(capsys, tmp_path, "--compute", 1000)
    assert outcome.code == 0, outcome.err
    told = " ".join(outcome.err.split())
    assert "the search ended before it met the budget of 110K: the network has 146.5K MACs" in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--decnas.budget", "1G"), "decnas.budget is 1G, but shrinking takes the network of"),
        (("--decnas.budget", "null"), "method decnas shrinks a network to a budget; name one"),
        (("--decnas.step", 2), "decnas.step is 2.0; it must be between 0 and 1"),
        (("--decnas.architecture", "nowhere.json"), "cannot read nowhere.json"),
        (("--engine", "flower"), "method decnas groups clients by labels that only simulated ones tell"),
        (("--privacy.clip", 1), "method decnas does not go with privacy.clip"),
    ],
)
def test_what_the_method_cannot_do_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], expected: str
) -> None:
    assert expected in check_refused(_train(capsys, tmp_path, *arguments), "train-supernet")
    assert not (tmp_path / "run").exists()
