"""Tables of an ablation: what stands in them, for people and for programs."""

import csv

from helpers.runs.ablations import ablation, result

from fedpareto.search.recipes.ablation import Recipe
from fedpareto.search.recipes.judging import Verdict, verdicts
from fedpareto.search.recipes.tables import tables, to_csv

_RECIPES = [Recipe("base", ()), Recipe("slow", ("slow",)), Recipe("together", ("slow", "smooth"))]


def _verdicts() -> list[Verdict]:
    together = _RECIPES[2].label
    results = [
        *(result("equal", "base", 0, 0.25, 0.5), result("equal", "base", 1, 0.5, 0.5)),
        *(result("equal", "slow", 0, 0.5, 0.75), result("equal", "slow", 1, 0.5, 0.5)),
        *(result("unequal", "base", 0, 0.25, 0.25), result("unequal", "base", 1, 0.0, 0.25)),
        *(result("unequal", "slow", 0, 0.25, 0.25), result("unequal", "slow", 1, 0.0, 0.25)),
        result("equal", together, 0, 0.5, 0.5),
    ]
    return verdicts(ablation(), _RECIPES, results)


def test_a_row_a_recipe_with_every_setting_and_budget() -> None:
    equal, unequal, last = tables(ablation(), "probe", _verdicts())
    assert equal.title == "tiny, equal: validation accuracy after 200M client MACs"
    assert unequal.title == "tiny, unequal: validation accuracy after 400M client MACs"
    assert list(equal.header) == [
        *("recipe", "seeds", "at 100 MACs", "at 200 MACs", "mean of budgets", "points above the base")
    ]
    assert [list(row) for row in equal.rows] == [
        ["base", "2", "37.50 ± 17.68 %", "50.00 ± 0.00 %", "43.75 ± 8.84 %", "–"],
        ["slow", "2", "50.00 ± 0.00 %", "62.50 ± 17.68 %", "56.25 ± 8.84 %", "+12.50 ± 17.68"],
        ["together", "1", "50.00 %", "50.00 %", "50.00 %", "+12.50"],
    ]
    assert [row[0] for row in unequal.rows] == ["base", "slow"]
    assert last.title == "tiny: points above the base, seed by seed (2 seeds), 20% of the compute"
    assert list(last.header) == ["recipe", "equal", "unequal", "all settings", "survives"]
    assert [list(row) for row in last.rows] == [
        ["slow", "+12.50 ± 17.68", "+0.00 ± 0.00", "+6.25 ± 8.84", "yes"],
        ["together", "+12.50", "–", "–", "–"],
    ]
    assert last.to_markdown().splitlines()[2:5] == [
        "| recipe | equal | unequal | all settings | survives |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| slow | +12.50 ± 17.68 | +0.00 ± 0.00 | +6.25 ± 8.84 | yes |",
    ]


def test_the_full_compute_is_called_so() -> None:
    first, _, last = tables(ablation(), "full", _verdicts())
    assert first.title.endswith("after 1G client MACs")
    assert last.title.endswith("the whole compute")


def test_programs_get_full_precision_and_a_line_for_each_mean() -> None:
    lines = list(csv.DictReader(to_csv(ablation(), [("probe", _verdicts())]).splitlines()))
    keys = [(line["setting"], line["recipe"], line["budget_macs"]) for line in lines]
    assert keys[:3] == [("equal", "base", budget) for budget in ("100", "200", "mean")]
    assert len(keys) == 3 * 5 + 1
    slow = {(line["setting"], line["budget_macs"]): line for line in lines if line["recipe"] == "slow"}
    assert float(slow["equal", "200"]["accuracy_mean"]) == 0.625
    assert float(slow["equal", "200"]["difference_mean"]) == 0.125
    assert float(slow["equal", "mean"]["difference_mean"]) == 0.125
    assert float(slow["all", "mean"]["difference_mean"]) == 0.0625
    assert {line["survived"] for line in slow.values()} == {"true"}
    assert {line["survived"] for line in lines if line["recipe"] != "slow"} == {""}
    assert {line["levers"] for line in lines if line["recipe"] == "together"} == {"slow+smooth"}
    assert {line["stage"] for line in lines} == {"probe"}
