from pathlib import Path
from typing import Any

import pytest

from fedpareto.search.ranking.fitting.terms import FIELDS
from fedpareto.search.ranking.fitting.weights import FitOptions
from fedpareto.search.ranking.options import RankingOptions, check_options, macs_range
from fedpareto.supernet.common.errors import UserError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "give either --run FOLDER, or --accuracies FILE with --space NAME"),
        ({"run": "r", "accuracies": "a"}, "give either"),
        ({"run": "r", "space": "s"}, "--space and --classes go with --accuracies"),
        ({"run": "r", "classes": 3}, "--space and --classes go with --accuracies"),
        ({"accuracies": "a"}, "--accuracies needs --space NAME"),
        ({"accuracies": "a", "space": "s", "images": 5}, "--images goes with --run"),
        ({"accuracies": "a", "space": "s", "flops_min": "3M"}, "--flops-min goes with --run"),
        ({"run": "r", "bands": 0}, "--bands is 0; it must be at least 1"),
        ({"run": "r", "seed": -1}, "--seed is -1; it must be at least 0"),
        ({"run": "r", "images": 0}, "--images is 0; it must be at least 1"),
        ({"run": "r", "subnets": 15}, "--subnets is 15; at least 4 in each of 4 bands take 16"),
        ({"run": "r", "band_width": 1.0}, "--band-width is 1.0; it must be above 0 and below 1"),
        (
            {"run": "r", "fit": True, "fitted": "omega"},
            "--fitted: unknown field 'omega'; valid: block_penalty",
        ),
        ({"run": "r", "fitted": "block_penalty"}, "--fitted and --pairs go with --fit"),
        ({"run": "r", "pairs": "all"}, "--fitted and --pairs go with --fit"),
        ({"run": "r", "form": "blocks"}, "--form is read only with --fit"),
        (
            {"run": "r", "fit": True, "fit_subnets": 50},
            "--fit-subnets is read only with --run, --fit and --form blocks",
        ),
        ({"run": "r", "fit": True, "budgets": "1M"}, "--budgets is read only with --run, --fit and --form blocks"),
        ({"run": "r", "test": True}, "--test is read only with --run, --fit and --form blocks"),
        (
            {"accuracies": "a", "space": "s", "fit": True, "form": "blocks", "test": True},
            "--test is read only with --run",
        ),
        ({"run": "r", "fit": True, "form": "blocks", "held_out": 0.3}, "--held-out is read only with --fit of weights"),
        (
            {"run": "r", "fit": True, "form": "blocks", "pairs": "all"},
            "--fitted and --pairs go with --fit of weights, not",
        ),
        (
            {"run": "r", "fit": True, "form": "blocks", "fit_subnets": 47},
            "--fit-subnets is 47; it must be at least 48",
        ),
        (
            {"run": "r", "fit": True, "form": "blocks", "budgets": "1M,0"},
            "--budgets: '0' is not a positive number",
        ),
        (
            {"run": "r", "fit": True, "form": "blocks", "budgets": "1M,lots"},
            "--budgets: cannot read 'lots'",
        ),
        ({"run": "r", "held_out": 0.0}, "--held-out is 0.0; it must be above 0 and below 1"),
    ],
)
def test_what_does_not_go_together_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}"):
        check_options(RankingOptions(**options))


def test_all_weights_are_fitted_unless_some_are_named() -> None:
    assert RankingOptions().manner == FitOptions("band", FIELDS)
    some = RankingOptions(fitted="block_penalty, kind_weights", pairs="all").manner
    assert some == FitOptions("all", ("block_penalty", "kind_weights"))
    check_options(RankingOptions(run="r", fit=True, fitted="block_penalty"))


def test_the_folder_is_the_runs_or_beside_the_accuracies() -> None:
    assert RankingOptions(run="runs/a").folder == Path("runs/a/validation")
    assert RankingOptions(accuracies="data/band.jsonl").folder == Path("data/band-validation")
    assert RankingOptions(run="runs/a", output="elsewhere").folder == Path("elsewhere")


def test_a_range_of_macs_is_the_caches_unless_given() -> None:
    assert macs_range(RankingOptions(), 5, 9) == (5, 9)
    assert macs_range(RankingOptions(flops_min="24M", flops_max="27M"), 5, 9) == (24_000_000, 27_000_000)
    with pytest.raises(UserError, match=r"--flops-min is 24,000,000 and --flops-max 9; the most must exceed the least"):
        macs_range(RankingOptions(flops_min="24M"), 5, 9)


def test_terms_may_be_fitted_to_a_run_or_to_given_accuracies() -> None:
    of_run = RankingOptions(run="r", fit=True, form="blocks", fit_subnets=100, budgets="1M, 2.5M", test=True)
    check_options(of_run)
    assert of_run.searched == [1_000_000, 2_500_000]
    assert RankingOptions().searched is None
    check_options(RankingOptions(accuracies="a", space="s", fit=True, form="blocks", held_out=0.3))
