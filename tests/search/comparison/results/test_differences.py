"""Methods subtracted seed by seed, and the price of sharing."""

import csv
import statistics

import pytest
from helpers.runs.simulation import largest
from helpers.runs.studies import BUDGETS, measured, outcome_of

from fedpareto.search.comparison.results.differences import differences_csv, differences_markdown, price_of_sharing
from fedpareto.search.comparison.results.outcome import TrialResult

_ACCURACIES = {
    "supernet": {0: (0.5, 0.625), 1: (0.25, 0.5), 2: (0.375, 0.5)},
    "fedavg-alone": {0: (0.75, 0.5), 1: (0.625, 0.875)},
    "fedavg-share": {1: (0.125, 0.25)},
}


def _outcomes() -> list[TrialResult]:
    return [
        outcome_of(label, seed, [measured(budget, one, largest()) for budget, one in zip(BUDGETS, pair, strict=True)])
        for label, seeds in _ACCURACIES.items()
        for seed, pair in seeds.items()
    ]


def test_the_price_of_sharing_is_paired_by_seed_at_every_budget() -> None:
    found = price_of_sharing(["supernet", "absent"], ["fedavg-alone", "fedavg-share"], BUDGETS, _outcomes())
    assert [(each.label, each.other, each.seeds) for each in found] == [
        ("supernet", "fedavg-alone", 2),
        ("supernet", "fedavg-share", 1),
    ]
    for place in range(len(BUDGETS)):
        apart = [_ACCURACIES["supernet"][seed][place] - _ACCURACIES["fedavg-alone"][seed][place] for seed in (0, 1)]
        spread = found[0].accuracies[place]
        assert spread is not None
        assert spread.mean == pytest.approx(statistics.fmean(apart))
        assert spread.deviation == pytest.approx(statistics.stdev(apart))
    lines = differences_markdown(found, BUDGETS, "sharing less alone").splitlines()
    assert lines[0].startswith("| sharing less alone | seeds |")
    assert lines[3] == "| supernet − fedavg-share | 1 | +12.50 | +25.00 |"
    parsed = list(csv.DictReader(differences_csv(found, BUDGETS).splitlines()))
    assert [(line["less"], line["seeds"], line["budget_macs"]) for line in parsed] == [
        (less, seeds, str(budget))
        for less, seeds in (("fedavg-alone", "2"), ("fedavg-share", "1"))
        for budget in BUDGETS
    ]
    assert float(parsed[0]["difference_mean"]) == -0.3125
    assert float(parsed[2]["difference_std"]) == 0.0


def test_a_budget_that_one_of_both_lacks_is_left_open() -> None:
    outcomes = [
        outcome_of("supernet", 0, [measured(budget, 0.5, largest()) for budget in BUDGETS]),
        outcome_of("fedavg-alone", 0, [measured(BUDGETS[1], 0.25, largest())]),
    ]
    (found,) = price_of_sharing(["supernet"], ["fedavg-alone"], BUDGETS, outcomes)
    assert found.accuracies[0] is None
    assert found.accuracies[1] is not None
    assert differences_csv([found], BUDGETS).count("\n") == 2
