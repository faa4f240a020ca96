"""How recipes are judged: differences seed by seed, and the rule for survivors, beside direct formulas."""

import math
import statistics

import pytest
from helpers.networks.strategies import runs
from helpers.runs.ablations import ablation, result
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.search.comparison.results.summary import MeanStd
from fedpareto.search.recipes.ablation import Recipe
from fedpareto.search.recipes.judging import Verdict, survives, verdicts

_GAIN = st.integers(-300, 300).map(lambda hundredths: hundredths / 10_000)
_BASE, _SLOW = Recipe("base", ()), Recipe("slow", ("slow",))


@given(
    gains=st.integers(1, 4).flatmap(
        lambda seeds: st.dictionaries(
            st.sampled_from("abc"), st.lists(_GAIN, min_size=seeds, max_size=seeds), min_size=1
        )
    ),
    keep=st.integers(0, 150).map(lambda hundredths: hundredths / 100 + 0.003),
)
@runs(300)
def test_a_recipe_survives_by_its_mean_gain_unless_a_setting_loses_as_much(
    gains: dict[str, list[float]], keep: float
) -> None:
    count = sum(len(each) for each in gains.values())
    total = sum(sum(each) for each in gains.values())
    # No mean of hundredths of a point is keep itself, which has thousandths.
    direct = 100 * total / count >= keep
    for each in gains.values():
        direct = direct and 100 * sum(each) / len(each) >= -keep
    assert survives(gains, keep) == direct


@pytest.mark.parametrize(
    ("gains", "survived"),
    [
        ({"equal": [0.5], "unequal": [0.5]}, True),
        ({"equal": [0.25, 0.75], "unequal": [0.5, 0.5]}, True),
        ({"equal": [0.5], "unequal": [0.25]}, False),
        ({"equal": [1.5], "unequal": [-0.5]}, True),
        ({"equal": [3.0], "unequal": [-0.75]}, False),
        ({"equal": [3.0, 3.0], "unequal": [-1.75, 1.0]}, True),
        ({"equal": [-3.0]}, False),
    ],
    ids=str,
)
def test_the_bounds_of_the_rule_belong_to_it(gains: dict[str, list[float]], survived: bool) -> None:
    assert survives(gains, 50) == survived


def test_gains_are_those_of_runs_with_the_same_seed() -> None:
    results = [
        *(result("equal", "base", 0, 0.25, 0.5), result("equal", "base", 1, 0.5, 0.25)),
        *(result("equal", "slow", 0, 0.5, 0.75), result("equal", "slow", 1, 0.25, 0.25)),
        *(result("unequal", "base", 0, 0.25, 0.25), result("unequal", "base", 1, 0.0, 0.25)),
        *(result("unequal", "slow", 0, 0.25, 0.25), result("unequal", "slow", 1, 0.25, 0.5)),
    ]
    base, slow = verdicts(ablation(), [_BASE, _SLOW, Recipe("smooth", ("smooth",))], results)
    assert (base.gain, base.survives, base.settings["equal"].apart, base.settings["equal"].gain) == (None,) * 4
    assert base.settings["equal"].mean == MeanStd(0.375, 0.0, 2)
    equal = slow.settings["equal"]
    assert equal.seeds == 2
    assert equal.accuracies == {100: _spread(0.5, 0.25), 200: _spread(0.75, 0.25)}
    assert equal.apart == {100: _spread(0.25, -0.25), 200: _spread(0.25, 0.0)}
    assert equal.gain == _spread(0.25, -0.125)
    assert slow.settings["unequal"].gain == _spread(0.0, 0.25)
    # Seed by seed over the settings: (0.25 + 0)/2 and (-0.125 + 0.25)/2.
    assert slow.gain == _spread(0.125, 0.0625)
    assert slow.survives is True


def _spread(*values: float) -> MeanStd:
    return MeanStd(statistics.fmean(values), statistics.stdev(values), len(values))


@given(
    accuracies=st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=2, max_size=2),
    keep=st.floats(0, 20),
)
@runs(100)
def test_verdicts_follow_from_all_accuracies_alike(accuracies: list[list[float]], keep: float) -> None:
    places = [("equal", 0), ("equal", 1), ("unequal", 0), ("unequal", 1)]
    results = [
        result(setting, recipe, seed, *own[2 * place : 2 * place + 2])
        for recipe, own in zip(("base", "slow"), accuracies, strict=True)
        for place, (setting, seed) in enumerate(places)
    ]
    _, slow = verdicts(ablation(keep=keep), [_BASE, _SLOW], results)
    direct = sum(slow - base for base, slow in zip(*accuracies, strict=True)) / 8
    assert slow.gain is not None
    assert math.isclose(slow.gain.mean, direct, abs_tol=1e-12)
    if abs(100 * direct - keep) > 1e-6 and 100 * direct < keep:
        assert slow.survives is False


def test_a_recipe_is_not_judged_while_a_run_is_missing() -> None:
    results = [
        *(result("equal", "base", 0, 0.25, 0.5), result("equal", "base", 1, 0.5, 0.25)),
        *(result("equal", "slow", 0, 0.5, 0.75), result("unequal", "slow", 0, 0.25, 0.25)),
        result("unequal", "base", 1, 0.25, 0.25),
    ]
    _, slow = verdicts(ablation(), [_BASE, _SLOW], results)
    assert isinstance(slow, Verdict)
    assert (slow.gain, slow.survives) == (None, None)
    assert slow.settings["equal"].gain == MeanStd(0.25, 0.0, 1)
    # Of seed 0 the base is missing, of seed 1 the lever.
    assert (slow.settings["unequal"].gain, slow.settings["unequal"].apart) == (None, None)


def test_a_result_of_a_seed_that_is_not_asked_for_does_not_count() -> None:
    results = [result(setting, "base", seed, 0.5, 0.5) for setting in ("equal", "unequal") for seed in (0, 7)]
    (base,) = verdicts(ablation(seeds=[0]), [_BASE], results)
    assert base.settings["equal"].seeds == 1
