"""Studies: what is refused, that all methods share what they must, and what their tables say."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.studies import BUDGETS as _BUDGETS
from helpers.runs.studies import tiny_study as _study
from helpers.runs.studies import write_study as _write

from fedpareto.search.comparison.results.differences import Difference, differences, differences_markdown
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult, read_outcome, write_outcome
from fedpareto.search.comparison.results.summary import MeanStd, Served, rows, to_csv, to_markdown
from fedpareto.search.comparison.studies.study import Study, read_study
from fedpareto.search.comparison.trials import share_done
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.rules.unused_settings import refuse_unread
from fedpareto.training.runs.folder import METRICS


def _read(folder: Path, **changes: Any) -> Study:
    return read_study(_write(folder, _study(folder, **changes)))


def test_all_methods_share_everything_but_their_own_settings(tmp_path: Path) -> None:
    study = _read(tmp_path)
    assert [(trial.label, trial.seed) for trial in study.trials] == [
        ("deepfednas", 0),
        ("cotrain", 0),
        ("deepfednas", 1),
        ("cotrain", 1),
    ]
    first, second = study.trials[:2]
    assert (first.config.method, second.config.method) == ("deepfednas", "cotrain")
    assert (first.config.client.lr, second.config.client.lr) == (0.05, 0.02)
    same = dataclasses.replace(second.config, method="deepfednas", client=first.config.client)
    assert same == first.config
    assert study.budgets == list(_BUDGETS)


def test_a_study_may_name_its_methods_and_take_its_images_from_elsewhere(tmp_path: Path) -> None:
    study = _study(tmp_path, methods={"no-random": {"method": "cotrain"}})
    study["run"]["data"]["name"] = "imagefolder"
    path = _write(tmp_path, study)
    (trial, _) = read_study(path, "elsewhere").trials
    assert trial.name == "no-random-seed0"
    assert trial.config.method == "cotrain"
    assert trial.config.data.root == "elsewhere"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"there is no field 'colour'; a study has: name, methods, seeds, budgets, run, reference"),
        ({"methods": {}}, "methods must be a mapping"),
        ({"methods": {"magic": {}}}, r"methods\.magic: say which method it is"),
        (
            {"methods": {"superfedna": {}}},
            r"methods\.superfedna: did you mean superfednas\? Else say",
        ),
        ({"methods": {"a b": {}}}, "names of methods are letters"),
        ({"methods": {"cotrain": {"server": {"aggregation": "none"}}}}, r"methods\.cotrain: unknown aggregator 'none'"),
        ({"methods": {"cotrain": {"seed": 3}}}, r"methods\.cotrain\.seed: all methods of a study share"),
        ({"methods": {"cotrain": {"data": {"crop": 3}}}}, r"methods\.cotrain\.data: all methods of a study share"),
        ({"methods": {"cotrain": {"compute": "1T"}}}, r"methods\.cotrain\.compute: all methods of a study share"),
        ({"methods": {"cotrain": 7}}, r"methods\.cotrain must be a mapping of settings"),
        ({"methods": {"cotrain": {"client": {"speed": 1}}}}, "speed"),
        ({"seeds": []}, r"seeds is \[\]"),
        ({"seeds": [-1]}, r"seeds is \[-1\]"),
        ({"seeds": [1, 0, 1]}, "seeds has 1 twice"),
        ({"budgets": []}, "budgets is empty"),
        ({"budgets": ["much"]}, "much"),
        ({"run": 3}, "run must be a mapping"),
        ({"run": {"seed": 3, "compute": "1T"}}, r"run\.seed: seeds are listed in the field seeds; leave it out"),
        ({"run": {"method": "cotrain", "compute": "1T"}}, r"run\.method: the methods are listed in the field methods"),
        ({"run": {"output": "runs/x", "compute": "1T"}}, r"run\.output: runs lie in --output; leave it out"),
        ({"run": {"client": {"epoch": 1}, "compute": "1T"}}, r"run: there is no field 'client\.epoch'"),
        ({"run": {}}, r"give either run\.compute, e\.g\. 2T, or reference"),
        ({"reference": "cotrain"}, r"give either run\.compute, e\.g\. 2T, or reference"),
        ({"reference": "magic"}, r"reference is 'magic'; it must be one of the methods: deepfednas, cotrain"),
    ],
    ids=str,
)
def test_a_study_that_is_none_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("methods", "run", "message"),
    [
        (
            {"deepfednas": {}, "superfednas": {}},
            {"clients": {"count": 6, "per_round": 2}},
            r"methods deepfednas and superfednas would compute the same \(with clients\.per_round 2 one client has",
        ),
        (
            {"cotrain": {}, "a": {"method": "superfednas"}, "b": {"method": "deepfednas"}},
            {"clients": {"count": 2, "per_round": 2}},
            "methods a and b would compute the same",
        ),
        ({"deepfednas": {}, "again": {"method": "deepfednas"}}, {}, "deepfednas and again would compute the same"),
        (
            {"cotrain": {}, "again": {"method": "cotrain", "evaluation": {"every": 7}, "checkpoint": {"keep": 9}}},
            {},
            "differ in nothing that changes the result",
        ),
        (
            {"cotrain": {"cotrain": {"distillation": 0.5}}, "other": {"method": "cotrain", "client": {"lr": 0.05}}},
            {},
            "methods cotrain and other would compute the same",
        ),
        (
            {"deepfednas": {"deepfednas": {"draw": "uniform"}}, "cotrain": {}},
            {"clients": {"count": 6, "per_round": 2}},
            r"methods\.deepfednas: deepfednas\.draw is uniform, which method deepfednas would ignore here",
        ),
        ({"cotrain": {"server": {"largest_weight": 0.5}}}, {}, r"methods\.cotrain: server\.largest_weight is 0\.5"),
        ({"fedavg": {"evaluation": {"probes": 4}}}, {}, r"methods\.fedavg: evaluation\.probes is 4"),
        (
            {"cotrain": {}, "fedavg": {}},
            {"decnas": {"budget": "60M"}},
            r"decnas\.budget is 60M, .* as would all others",
        ),
        ({"cotrain": {}}, {"data": {"root": "elsewhere"}}, r"run: data\.root is elsewhere"),
    ],
    ids=str,
)
def test_methods_that_compute_the_same_and_settings_that_nobody_reads_are_refused_in_one_line(
    tmp_path: Path, methods: dict[str, Any], run: dict[str, Any], message: str
) -> None:
    study = _study(tmp_path, methods=methods)
    study["run"] = {**study["run"], **run}
    with pytest.raises(UserError, match=message) as caught:
        read_study(_write(tmp_path, study))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("entries", "same"), [(1, True), (2, True), (3, False)])
def test_methods_that_a_small_cache_makes_the_same_are_refused(tmp_path: Path, entries: int, same: bool) -> None:
    other = {"method": "cotrain", "cotrain": {"networks": "extremes"}}
    study = _study(tmp_path, methods={"cotrain": {}, "none-drawn": other})
    lines = Path(study["run"]["cache"]).read_text().splitlines()
    small = tmp_path / "small.jsonl"
    small.write_text("\n".join(lines[: entries + 1]) + "\n")
    study["run"]["cache"] = str(small)
    path = _write(tmp_path, study)
    if not same:
        assert len(read_study(path).labels) == 2
        return
    with pytest.raises(UserError, match=rf"a cache of {entries} leaves nothing that tells them apart"):
        read_study(path)


def test_common_settings_reach_the_methods_that_read_them_and_no_others(tmp_path: Path) -> None:
    methods: dict[str, Any] = {name: {} for name in ("deepfednas", "superfednas", "cotrain", "fedavg")}
    study = _study(tmp_path, methods=methods, seeds=[4])
    study["run"] |= {
        "deepfednas": {"draw": "uniform"},
        "cotrain": {"distillation": 0.25},
        "server": {"largest_weight": 0.5, "momentum": 0.1},
    }
    found = {trial.label: trial.config for trial in read_study(_write(tmp_path, study)).trials}
    assert {label: config.deepfednas.draw for label, config in found.items()} == {
        **dict.fromkeys(methods, "balanced"),
        "deepfednas": "uniform",
    }
    assert {label: config.cotrain.distillation for label, config in found.items()} == {
        **dict.fromkeys(methods, 0.5),
        "cotrain": 0.25,
    }
    assert [config.server.largest_weight for config in found.values()] == [0.5, 0.5, None, None]
    assert {config.server.momentum for config in found.values()} == {0.1}
    for config in found.values():
        refuse_unread(config)


def test_a_study_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    study = _study(tmp_path)
    del study["seeds"]
    with pytest.raises(UserError, match="lacks the field 'seeds'"):
        read_study(_write(tmp_path, study))


@pytest.mark.parametrize("path", sorted(Path("studies").glob("cifar*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_ship_can_be_read(path: Path) -> None:
    study = read_study(path)
    assert study.name == path.stem
    assert len(study.seeds) >= 3


def _outcome(label: str, seed: int, accuracies: dict[int, float]) -> TrialResult:
    networks = [
        MeasuredNetwork(budget, budget - 10 - seed, 5, 0.5, accuracy, 0.25, {"stages": []})
        for budget, accuracy in accuracies.items()
    ]
    return TrialResult(label, seed, 7 + seed, 1000, 2000, 3000, 4.0, networks, "a machine")


def test_the_table_has_means_and_sample_deviations_over_seeds() -> None:
    outcomes = [
        _outcome("a", 0, {100: 0.5, 200: 0.7}),
        _outcome("a", 1, {100: 0.6, 200: 0.7}),
        _outcome("b", 0, {200: 0.9}),
    ]
    served = {("a", 0): Served(0.5, 0.5), ("a", 1): Served(0.75, 0.0)}
    one, other = rows(["a", "b", "c"], [100, 200], outcomes, served)
    assert one.seeds == 2
    assert one.accuracies[0] is not None
    assert one.accuracies[0] == MeanStd(0.55, one.accuracies[0].deviation, 2)
    assert one.accuracies[0].deviation == pytest.approx(0.1 / 2**0.5)
    assert one.accuracies[1] == MeanStd(0.7, 0.0, 2)
    assert one.macs == [89.5, 189.5]
    assert one.rounds == 7.5
    assert one.search_seconds == 0.5
    assert other.accuracies == [None, MeanStd(0.9, 0.0, 1)]
    assert other.macs == [None, 190]
    lines = to_markdown([one, other], [100, 200]).splitlines()
    assert lines[2].startswith(
        "| a | 2 | 55.00 ± 7.07 % | 70.00 ± 0.00 % | 62.50 ± 17.68 % (25 % can run none) | 2 kB |"
    )
    assert lines[3].startswith("| b | 1 | – | 90.00 % | – | 2 kB | 1K MACs |")
    parsed = list(csv.DictReader(to_csv([one, other], [100, 200]).splitlines()))
    assert [(line["method"], line["budget_macs"]) for line in parsed] == [("a", "100"), ("a", "200"), ("b", "200")]
    assert float(parsed[0]["accuracy_mean"]) == 0.55
    assert float(parsed[0]["bytes_down"]) == 3000
    assert float(parsed[1]["clients_accuracy_mean"]) == 0.625
    assert float(parsed[1]["clients_accuracy_std"]) == pytest.approx(0.25 / 2**0.5)
    assert float(parsed[1]["clients_unserved"]) == 0.25
    assert (parsed[2]["clients_accuracy_mean"], parsed[2]["clients_unserved"]) == ("", "")


def test_methods_are_subtracted_seed_by_seed() -> None:
    outcomes = [
        _outcome("a", 0, {100: 0.5, 200: 0.75}),
        _outcome("b", 0, {100: 0.25, 200: 0.5}),
        _outcome("a", 1, {100: 0.75}),
        _outcome("b", 1, {100: 0.25, 200: 0.5}),
        _outcome("a", 2, {100: 0.0}),  # b has not finished this seed
        _outcome("c", 5, {100: 0.5}),  # shares no seed
    ]
    found = differences(["a", "b", "c"], [100, 200, 300], outcomes)
    expected = [MeanStd(0.375, 0.25 / 2 * 2**0.5, 2), MeanStd(0.25, 0.0, 1), None]
    assert found == [Difference("a", "b", 2, expected)]
    lines = differences_markdown(found, [100, 200, 300]).splitlines()
    assert lines[0] == "| difference in points | seeds | at 100 MACs | at 200 MACs | at 300 MACs |"
    assert lines[2] == "| a − b | 2 | +37.50 ± 17.68 | +25.00 (1 of 2) | – |"


def test_an_outcome_is_read_back_and_a_damaged_one_named(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    outcome = dataclasses.replace(_outcome("a", 0, {100: 0.5}), networks=[])
    write_outcome(path, outcome)
    assert read_outcome(path) == outcome
    # A linear model has no architecture.
    linear = dataclasses.replace(outcome, networks=[MeasuredNetwork(7, 7, 8, 0.5, 0.25, 0.0, None)])
    write_outcome(path, linear)
    assert read_outcome(path) == linear
    path.write_text("{}")
    with pytest.raises(UserError, match=r"outcome\.json is damaged; remove it"):
        read_outcome(path)


def test_how_far_a_run_is_comes_from_its_metrics(tmp_path: Path) -> None:
    assert share_done(tmp_path) == 0
    (tmp_path / METRICS).write_text('{"done": 0.25}\n{"done": 0.5}\n{"done": 0.7')
    assert share_done(tmp_path) == 0.5
