"""Ablations as values: which recipes are tried, on what compute, and with whose changes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.networks.strategies import runs
from helpers.runs.ablations import ablation, read_levers
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.search.recipes.ablation import BASE, Recipe, planned
from fedpareto.training.config.rules.unused_settings import settings_of

_THREE: dict[str, Any] = {name: {"client": {"clip": 1 + place}} for place, name in enumerate("abc")}


def _names(recipes: Sequence[Recipe]) -> list[tuple[str, tuple[str, ...]]]:
    return [(recipe.name, recipe.levers) for recipe in recipes]


def test_every_lever_is_tried_alone_and_all_together() -> None:
    alone = [("base", ()), ("a", ("a",)), ("b", ("b",)), ("c", ("c",))]
    assert _names(ablation(levers=_THREE).recipes()) == [*alone, ("together", ("a", "b", "c"))]
    assert _names(ablation(levers=_THREE, together=False).recipes()) == alone
    assert _names(ablation(levers={"a": _THREE["a"]}).recipes()) == alone[:2]


@pytest.mark.parametrize(
    ("survivors", "names"),
    [
        ([], []),
        (["b"], [("base", ()), ("b", ("b",))]),
        (["c", "a"], [("base", ()), ("a", ("a",)), ("c", ("c",)), ("survivors", ("a", "c"))]),
        (["together"], [("base", ()), ("together", ("a", "b", "c"))]),
        (
            ["a", "b", "together"],
            [
                *(("base", ()), ("a", ("a",)), ("b", ("b",)), ("together", ("a", "b", "c"))),
                ("survivors", ("a", "b")),
            ],
        ),
        (["a", "b", "c"], [("base", ()), ("a", ("a",)), ("b", ("b",)), ("c", ("c",)), ("together", ("a", "b", "c"))]),
    ],
    ids=str,
)
def test_what_survives_goes_on_with_the_base_and_with_each_other(
    survivors: list[str], names: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert _names(ablation(levers=_THREE).finalists(survivors)) == names
    without = [name for name in survivors if name != "together"]
    alone = [(name, levers) for name, levers in names if len(levers) < 2]
    assert _names(ablation(levers=_THREE, together=False).finalists(without)) == (alone if without else [])


def test_files_of_recipes_with_several_levers_are_named_by_which_they_are() -> None:
    labels = [Recipe("together", ("a", "b")).label, Recipe("survivors", ("b", "a")).label]
    assert labels[0] == labels[1]
    assert labels[0].startswith("together-")
    assert Recipe("together", ("a", "b", "c")).label != labels[0]
    assert (Recipe("a", ("a",)).label, Recipe(BASE, ()).label) == ("a", "base")


def test_runs_of_a_stage_differ_in_nothing_but_their_levers_and_seed(tmp_path: Path) -> None:
    found = read_levers(tmp_path, probe=0.25)
    probes = {(run.recipe.name, run.trial.seed): run for run in planned(found, "probe", found.recipes())}
    assert [key for key in probes if key[1] == 0] == [(name, 0) for name in ("base", "slow", "smooth", "together")]
    assert list(probes)[:4] == [key for key in probes if key[1] == 0]
    base = settings_of(probes["base", 0].trial.config)
    changes = {
        "base": {},
        "slow": {"client.lr": 0.01},
        "smooth": {"client.label_smoothing": 0.1},
        "together": {"client.lr": 0.01, "client.label_smoothing": 0.1},
    }
    for (name, seed), run in probes.items():
        assert settings_of(run.trial.config) == base | {"seed": seed} | changes[name]
        assert run.limit == 60_000_000
    (whole,) = planned(dataclasses.replace(found, seeds=[1]), "full", [Recipe("slow", ("slow",))])
    assert (whole.trial.config.compute, whole.limit, whole.trial.name) == ("240M", 240_000_000, "equal.slow-seed1")


@given(share=st.floats(1e-6, 1, exclude_max=True), compute=st.integers(1, 10**15))
@runs(100)
def test_the_probe_spends_its_share(share: float, compute: int) -> None:
    spent = ablation(settings={"equal": {"compute": str(compute)}}, probe=share).compute("equal", "probe")
    assert spent >= 1
    assert abs(spent - share * compute) <= 1
