"""Yardsticks of a study: how they are asked for, what their runs are set to, and how they become rows."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Outcome, called
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, smallest
from helpers.runs.studies import BUDGETS, measured, outcome_of, read_tiny, tiny_study, write_study

from fedpareto.search.comparison.cli import main
from fedpareto.search.comparison.results.differences import differences, differences_cells
from fedpareto.search.comparison.results.outcome import read_outcome
from fedpareto.search.comparison.results.summary import cells, rows
from fedpareto.search.comparison.studies.study import read_study
from fedpareto.search.comparison.studies.yardsticks import Yardstick, row_label, rows_of, yardsticks_of
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.rules.unused_settings import refuse_unread
from fedpareto.training.data.run_images import shares
from fedpareto.training.data.sources import list_images
from fedpareto.training.runs.folder import METRICS, read_split

_ALL = ("alone", "share", "central", "linear")


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (True, _ALL),
        (False, ()),
        (None, ()),
        ("share", ("share",)),
        (["linear", "alone", "linear"], ("alone", "linear")),
    ],
    ids=str,
)
def test_a_study_asks_for_all_yardsticks_or_some(tmp_path: Path, value: object, kinds: tuple[str, ...]) -> None:
    study = read_tiny(tmp_path, yardsticks=value)
    assert study.kinds == kinds
    labels = [trial.label for trial in study.trials if trial.seed == 1][2:]
    networks = [f"fedavg-{budget}-{kind}" for kind in kinds if kind != "linear" for budget in ("60K", "120K")]
    assert labels == [*networks, *(["linear"] if "linear" in kinds else [])]
    # Methods come first, so that they are done first.
    assert [trial.label for trial in study.methods] == ["deepfednas", "cotrain"] * 2
    assert list(study.trials[:4]) == list(study.methods)


def test_budgets_that_four_digits_cannot_tell_apart_have_names_of_their_own() -> None:
    labels = [each.label for each in yardsticks_of(["alone"], [1_800_000, 1_800_100])]
    assert labels == ["fedavg-1.8M-alone", "fedavg-1800100-alone"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"yardsticks": ["foo"]},
            r"yardsticks has 'foo'; give true for all, or some of: alone, share, central, linear",
        ),
        ({"yardsticks": []}, r"yardsticks is empty; give true for all, or some of: alone"),
        ({"yardsticks": {"alone": True}}, r"yardsticks is a mapping of fields; it must be a list"),
        ({"yardsticks": 7}, r"yardsticks has '7'"),
        (
            {"yardsticks": ["share", "alone"], "budgets": ["60k"]},
            r"yardsticks alone and share are the same where there is one budget; name one of them",
        ),
        (
            {"yardsticks": True, "methods": {"fedavg-60K-share": {"method": "cotrain"}}},
            r"methods\.fedavg-60K-share is called what a yardstick is; give the method another name",
        ),
        ({"yardsticks": True, "methods": {"linear": {"method": "cotrain"}}}, r"methods\.linear is called what a yard"),
        (
            {"yardsticks": True, "methods": {"fedavg-alone": {"method": "cotrain"}}},
            r"methods\.fedavg-alone is called what a yard",
        ),
    ],
    ids=str,
)
def test_yardsticks_that_are_none_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_tiny(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_without_that_yardstick_a_method_may_have_its_name(tmp_path: Path) -> None:
    study = read_tiny(tmp_path, yardsticks=["share"], methods={"linear": {"method": "cotrain"}})
    assert study.labels == ["linear"]


def test_yardsticks_take_the_common_settings_that_fedavg_reads_and_no_others(tmp_path: Path) -> None:
    run = {
        "deepfednas": {"draw": "uniform"},
        "cotrain": {"distillation": 0.25},
        "fedavg": {"architecture": "elsewhere.json"},
        "server": {"largest_weight": 0.5, "momentum": 0.1},
        "evaluation": {"every": 7, "probes": 4},
        "clients": {"count": 6, "per_round": 3, "max_macs": ["60k", "1M"], "data": "matched"},
        "client": {"epochs": 3, "batch_size": 16, "lr": 0.3},
    }
    methods: dict[str, Any] = {name: {} for name in ("deepfednas", "superfednas", "cotrain")}
    study = read_tiny(tmp_path, run, yardsticks=True, methods={**methods, "fedavg": {}})
    found = {trial.yardstick: trial.config for trial in study.trials if trial.seed == 1 and trial.yardstick}
    for yardstick, config in found.items():
        refuse_unread(config)
        assert (config.method, config.seed, config.fedavg.architecture) == ("fedavg", 1, None)
        assert (config.client.lr, config.evaluation.every, config.tracking.wandb) == (0.3, 7, "off")
        assert config.compute == ("120000000" if yardstick.kind == "share" else "240M")
    alone, central = found[Yardstick("alone", 60_000)], found[Yardstick("central", 60_000)]
    assert (alone.clients.max_macs, alone.server.momentum, alone.client.epochs) == (("60k", "1M"), 0.1, 3)
    assert (central.clients.data, central.clients.count, central.clients.per_round) == ("pooled", 6, 1)
    assert (central.clients.max_macs, central.server.momentum, central.client.epochs) == ((), 0.0, 1)
    assert dataclasses.replace(central, clients=alone.clients, server=alone.server, client=alone.client) == alone
    # The loss of the supernets.
    adjustments = {each.kind: config.client.logit_adjustment for each, config in found.items()}
    assert adjustments == {"alone": 1.0, "share": 1.0, "central": None, "linear": None}


def test_yardsticks_adjust_logits_as_the_study_says(tmp_path: Path) -> None:
    run = tiny_study(tmp_path)["run"]["client"] | {"logit_adjustment": 0.5}
    study = read_tiny(tmp_path, {"client": run}, yardsticks=["alone"])
    assert {trial.config.client.logit_adjustment for trial in study.trials if trial.yardstick} == {0.5}


def test_in_one_place_are_all_images_that_clients_have_by_their_strength(tmp_path: Path) -> None:
    """Plain Dirichlet draws of so many clients would leave some of them without a batch."""
    run = {"clients": {"count": 60, "per_round": 3, "max_macs": ["60k", "1M"], "data": "proportional"}}
    study = read_tiny(tmp_path, run, yardsticks=["central"])
    central = next(trial.config for trial in study.trials if trial.yardstick)
    listing = list_images("digits", "", "train", download=False)
    clients = shares(central, listing).clients
    assert len(clients) == 1
    assert len(clients[0]) == len(listing) - len(shares(central, listing).validation)


def test_after_a_reference_yardsticks_have_their_part_of_what_it_computed(tmp_path: Path) -> None:
    run = {"compute": None, "rounds": 2}
    study = read_tiny(tmp_path, run, yardsticks=["alone", "share"], reference="cotrain")
    computes = [study.with_compute(trial, "1001").config.compute for trial in study.trials if trial.seed == 0]
    assert computes == ["1001", "1001", "1001", "1001", "500", "500"]


def test_images_that_are_with_connected_clients_are_in_no_one_place(tmp_path: Path) -> None:
    run = {"engine": "flower", "data": {"name": "digits"}}
    with pytest.raises(UserError, match=r"yardsticks: central: clients\.data pooled is for simulations"):
        read_tiny(tmp_path, run, yardsticks=["central"])


def test_the_runs_of_a_kind_become_one_row_a_seed() -> None:
    small, large = measured(BUDGETS[0], 0.25, smallest()), measured(BUDGETS[1], 0.75, largest())
    linear = dataclasses.replace(small, budget=7, architecture=None, test_accuracy=0.5)
    found = rows_of(
        ["alone", "linear"],
        BUDGETS,
        {
            Yardstick("alone", BUDGETS[1]): [outcome_of("b", 0, [large], 10), outcome_of("b", 3, [large], 1)],
            Yardstick("alone", BUDGETS[0]): [outcome_of("a", 0, [small], 100)],
            Yardstick("linear"): [outcome_of("linear", 0, [linear], 0)],
        },
    )
    whole, part, flat = found
    assert (whole.label, whole.seed, whole.networks) == (row_label("alone"), 0, [small, large])
    # All of its runs together.
    assert (whole.compute, whole.rounds, whole.bytes_up, whole.bytes_down, whole.seconds) == (110, 14, 4000, 6000, 8.0)
    assert (part.seed, part.networks, part.compute) == (3, [large], 1)
    assert [(each.budget, each.test_accuracy) for each in flat.networks] == [(BUDGETS[0], 0.5), (BUDGETS[1], 0.5)]


def test_a_seed_of_which_runs_are_missing_is_told_and_lowers_no_mean() -> None:
    small, large = measured(BUDGETS[0], 0.25, smallest()), measured(BUDGETS[1], 0.75, largest())
    whole, part = outcome_of("fedavg-alone", 0, [small, large], 200), outcome_of("fedavg-alone", 1, [large], 100)
    (row,) = rows(["fedavg-alone"], BUDGETS, [whole, part])
    assert (row.seeds, row.compute) == (2, 200)
    assert cells(row)[2:4] == ["25.00 % (1 of 2)", "75.00 ± 0.00 %"]
    other = [dataclasses.replace(each, label="x") for each in (whole, part)]
    (apart,) = differences(["x", "fedavg-alone"], BUDGETS, [whole, part, *other])
    assert differences_cells(apart)[2:] == ["+0.00 (1 of 2)", "+0.00 ± 0.00"]


def _compare(*arguments: object) -> Outcome:
    return called(main, *arguments)


@pytest.mark.slow
def test_a_study_with_yardsticks_ends_with_their_rows_and_the_price_of_sharing(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, seeds=[0], methods={"deepfednas": {}}, yardsticks=["share", "central", "linear"])
    study["run"] |= {"compute": "120M", "clients": {"count": 6, "per_round": 3, "max_macs": ["1M", "100k"]}}
    path, output = write_study(tmp_path, study), tmp_path / "out"
    done = _compare("--config", path, "--output", output, "--jobs", 2)
    assert done.code == 0, done.err
    assert "yardsticks share, central, linear; in" in done.err
    parsed = list(csv.DictReader((output / "table.csv").read_text().splitlines()))
    rows = ["deepfednas", "fedavg-share", "fedavg-central", "linear"]
    assert [(line["method"], int(line["budget_macs"])) for line in parsed] == [
        (label, budget) for label in rows for budget in BUDGETS
    ]
    # Both networks of a row are those that the search finds for the method.
    assert {line["macs"] for line in parsed[:6:2]} == {parsed[0]["macs"]}
    assert [round(float(line["compute_macs"]) / 120e6, 1) for line in parsed[::2]] == [1, 1, 2, 0]
    _check_price(output, parsed)
    _check_images(output)
    page = (output / "table.md").read_text()
    assert "| sharing less training alone, in points | seeds |" in page
    assert "| deepfednas − fedavg-share | 1 |" in page
    assert "the price of sharing" in done.out
    # One result is gone: that trial alone is measured again, and its run was finished.
    gone = output / "results" / "fedavg-60K-share-seed0.json"
    before = {file: file.stat().st_mtime_ns for file in (output / "results").iterdir() if file != gone}
    old = read_outcome(gone)
    gone.unlink()
    assert _compare("--config", path, "--output", output).code == 0
    assert read_outcome(gone) == old
    assert {file: file.stat().st_mtime_ns for file in before} == before


def _check_price(output: Path, parsed: list[dict[str, str]]) -> None:
    accuracies = [float(line["accuracy_mean"]) for line in parsed]
    price = list(csv.DictReader((output / "price.csv").read_text().splitlines()))
    assert [(line["method"], line["less"], line["seeds"]) for line in price] == [
        ("deepfednas", "fedavg-share", "1")
    ] * 2
    assert [float(line["difference_mean"]) for line in price] == pytest.approx(
        [accuracies[0] - accuracies[2], accuracies[1] - accuracies[3]]
    )


def _check_images(output: Path) -> None:
    federated, pooled = (read_split(output / "runs" / f"fedavg-60K-{kind}-seed0") for kind in ("share", "central"))
    assert list(pooled.clients[0]) == sorted(index for members in federated.clients for index in members)
    assert pooled.validation == federated.validation
    assert pooled.digest == federated.digest
    # Clients that cannot run the large network have no part in its training.
    records = (output / "runs" / "fedavg-120K-share-seed0" / METRICS).read_text().splitlines()
    trained = {client["client"] for record in map(json.loads, records) for client in record["clients"]}
    assert trained <= {0, 2, 4}


def test_a_yardstick_that_no_client_can_run_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, seeds=[5], yardsticks=["alone"])
    study["run"]["clients"] = {"count": 6, "per_round": 3, "max_macs": ["100k"]}
    done = _compare("--config", write_study(tmp_path, study), "--output", tmp_path / "out")
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        "compare-methods: error: with seed 5 no client can run the 114.7K MACs of the network of fedavg-120K-alone; "
        "leave out that budget or the yardstick alone, or raise clients.max_macs"
    )
    assert not (tmp_path / "out").exists()


def test_a_yardstick_of_another_network_is_not_gone_on_with(tmp_path: Path) -> None:
    from fedpareto.search.comparison.trials import check_same
    from fedpareto.supernet.architecture_file import architecture_text
    from fedpareto.training.config.run import write_config

    trial = next(trial for trial in read_tiny(tmp_path, yardsticks=["alone"]).trials if trial.yardstick)
    write_config(tmp_path / f"{trial.name}.yaml", trial.config)
    (tmp_path / f"{trial.name}.json").write_text(architecture_text(smallest(MICRO)))
    check_same(dataclasses.replace(trial, network=smallest(MICRO)), tmp_path)
    with pytest.raises(UserError, match="was trained with other settings than the study has now"):
        check_same(dataclasses.replace(trial, network=largest(MICRO)), tmp_path)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("cifar10-small", ("alone", "share", "linear")), ("cifar10-small-unequal", ("share", "linear"))],
)
def test_the_small_studies_have_yardsticks(name: str, kinds: tuple[str, ...]) -> None:
    assert read_study(Path("studies") / f"{name}.yaml").kinds == kinds
