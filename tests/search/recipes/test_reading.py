"""Files of levers: what is refused, each in one line, and what settings of studies become."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.networks.strategies import runs
from helpers.runs.ablations import BUDGETS, levers_file, micro_run, read_levers, write_levers
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.search.recipes.ablation import BASE, Recipe
from fedpareto.search.recipes.checks import FIXED, is_fixed
from fedpareto.search.recipes.reading import read_ablation
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.rules.unused_settings import settings_of
from fedpareto.training.config.run import RunConfig

_LR = {"client": {"lr": 0.01}}

#: One lever that is fine beside what another one is refused for.
_FINE: dict[str, Any] = {"smooth": {"client": {"label_smoothing": 0.1}}}


def test_a_file_has_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    found = read_levers(tmp_path, seeds=[3, 1])
    assert (found.name, list(found.settings), list(found.levers)) == ("tiny", ["equal"], ["slow", "smooth"])
    assert (found.seeds, found.budgets) == ([3, 1], list(BUDGETS))
    assert (found.together, found.probe, found.keep) == (True, 0.2, 0.5)
    config = found.config("equal", Recipe(BASE, ()))
    assert (config.tracking.wandb, config.tracking.progress) == ("off", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"there is no field 'colour'; there are: name, settings, seeds, budgets, levers, base"),
        ({"lever": {}}, r"there is no field 'lever'; did you mean 'levers'\?"),
        ({"seeds": None}, r"lacks the field 'seeds'; a file of levers has: name, settings, seeds, budgets, levers"),
        ({"settings": 3}, r"settings must be a mapping of names, e\.g\. equal: studies/cifar10-small\.yaml"),
        ({"settings": {}}, r"settings must be a mapping of names"),
        ({"settings": {"a.b": {}}}, r"settings has 'a\.b'; names are letters, digits, - and _"),
        ({"settings": {"all": {}}}, r"settings has 'all', which means something else in tables; name it otherwise"),
        ({"settings": {"equal": [1]}}, r"settings\.equal must be a mapping of settings"),
        ({"settings": {"equal": {}}}, r"settings\.equal has no compute; recipes are compared at the same client MACs"),
        (
            {"settings": {"equal": {"compute": "1G", "seed": 3}}},
            r"settings\.equal\.seed: seeds are listed in",
        ),
        ({"settings": {"equal": {"compute": "much"}}}, r"the base in setting equal: cannot read 'much'"),
        (
            {"settings": {"equal": {"compute": "1G", "speed": 3}}},
            "base in setting equal: there is no field 'speed'",
        ),
        ({"settings": {"equal": "nowhere.yaml"}}, r"cannot read nowhere\.yaml"),
        ({"base": 3}, r"base must be a mapping of settings"),
        ({"base": {"output": "here"}}, r"base\.output: seeds are listed in the field seeds"),
        (
            {"base": {"server": {"weight_by_examples": 3}}},
            r"the base in setting equal: server\.weight_by_examples is 3",
        ),
        ({"base": {"cotrain": {"distillation": 0.1}}}, r"the base in setting equal: cotrain\.distillation is 0\.1"),
        ({"base": {"method": "fedavg"}}, r"the base in setting equal: method fedavg trains one network"),
        (
            {"base": {"server": {"aggregation": "none"}}},
            r"the base in setting equal: unknown aggregator 'none'; valid: cl",
        ),
        ({"base": {"engine": "flower"}}, r"the base in setting equal: engine is flower; recipes are compared in sim"),
        (
            {"base": {"fitness": "no.yaml"}},
            r"the base in setting equal: cache is|the base in setting equal: fitness is",
        ),
        (
            {"levers": {**_FINE, "other": {"cache": "no.jsonl"}}},
            r"levers\.other in setting equal: cache is no\.jsonl, which is no file; paths count",
        ),
        ({"seeds": []}, r"seeds is \[\]; it must list whole numbers of at least 0"),
        ({"seeds": [-1]}, r"seeds is \[-1\]"),
        ({"budgets": []}, r"budgets is empty"),
        ({"budgets": ["much"]}, r"budgets: cannot read 'much'"),
        ({"probe": 0}, r"probe is 0; it must be a share of the compute between 0 and 1"),
        ({"probe": 1}, r"probe is 1; it must be a share of the compute between 0 and 1"),
        ({"probe": "a lot"}, r"probe is a lot; it must be a number"),
        ({"keep": -0.5}, r"keep is -0\.5; it must be points of accuracy, at least 0"),
        ({"together": "perhaps"}, r"together is perhaps; it must be true or false"),
        ({"levers": {}}, r"levers must be a mapping of names, e\.g\. slow: \{client: \{lr: 0\.01\}\}"),
        ({"levers": {"a b": _LR}}, r"levers has 'a b'; names are letters"),
        ({"levers": {"base": _LR}}, r"levers has 'base', which means something else in tables"),
        ({"levers": {"slow": 3}}, r"levers\.slow must be a mapping of settings"),
        ({"levers": {"slow": None}}, r"levers\.slow changes nothing; give it settings of a run"),
        ({"levers": {"slow": {"client": {}}}}, r"levers\.slow changes nothing"),
        ({"levers": {"slow": {"client": {"speed": 1}}}}, r"levers\.slow in setting equal: .*client\.speed"),
        ({"levers": {"slow": {"client": {"lr": -1}}}}, r"levers\.slow in setting equal: client\.lr is -1"),
        (
            {"levers": {"slow": {"client": {"lr": 0.05}}}},
            r"levers\.slow trains in setting equal exactly as the base",
        ),
        ({"levers": {"slow": _LR, "again": _LR}}, r"levers\.again trains in setting equal exactly as lever slow does"),
        (
            {"levers": {"slow": _LR, "fast": {"client": {"lr": 1}}}},
            r"levers slow and fast set client\.lr to 0\.01 and 1; leave one out, or try none together with together",
        ),
        (
            {"levers": {**_FINE, "one": {"method": "fedavg"}}},
            r"levers\.one in setting equal: method fedavg trains one network",
        ),
        (
            {"levers": {**_FINE, "distil": {"cotrain": {"distillation": 0.1}}}},
            r"levers\.distil in setting equal: cotrain\.distillation is 0\.1, which method deepfednas would ignore",
        ),
        (
            {"levers": {"by-examples": {"server": {"weight_by_examples": True}}, "cotrain": {"method": "cotrain"}}},
            r"levers by-examples, cotrain together in setting equal: server\.weight_by_examples is True, .* or try no",
        ),
        (
            {"levers": {"a": {"server": {"weight_by_examples": True}}, "b": {"privacy": {"clip": 1.0}}}},
            r"levers a, b together in setting equal: server\.weight_by_examples is on with privacy\.clip",
        ),
    ],
    ids=str,
)
def test_a_file_of_levers_that_is_none_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    fields = levers_file(tmp_path) | {name: value for name, value in changes.items() if value is not None}
    for name in [name for name, value in changes.items() if value is None]:
        del fields[name]
    with pytest.raises(UserError, match=message) as caught:
        read_ablation(write_levers(tmp_path, fields))
    assert "\n" not in str(caught.value)


def test_levers_that_contradict_each_other_can_be_tried_alone(tmp_path: Path) -> None:
    levers = {"slow": _LR, "fast": {"client": {"lr": 1}}}
    found = read_levers(tmp_path, levers=levers, together=False)
    assert [recipe.name for recipe in found.recipes()] == ["base", "slow", "fast"]


def test_levers_may_set_the_same_to_one_value(tmp_path: Path) -> None:
    levers = {"slow": _LR, "smooth": {"client": {"lr": 0.01, "label_smoothing": 0.1}}}
    assert read_levers(tmp_path, levers=levers).recipes()[-1].levers == ("slow", "smooth")


@given(name=st.sampled_from(sorted(settings_of(RunConfig()))))
@runs(200)
def test_no_lever_changes_images_clients_or_compute(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    fixed = name in FIXED or any(name.startswith(group) for group in FIXED if group.endswith("."))
    assert is_fixed(name) == (fixed and name != "clients.per_round")
    if not is_fixed(name):
        return
    folder = tmp_path_factory.mktemp("fixed")
    group, _, field = name.rpartition(".")
    fields = levers_file(folder, levers={"own": {group: {field: 1}} if group else {name: 1}})
    with pytest.raises(UserError, match=rf"levers\.own: all recipes have the same {name}; of a run they share seed"):
        read_ablation(write_levers(folder, fields))


@pytest.mark.parametrize("group", ["clients", "partition", "evaluation", "execution"])
def test_a_whole_group_of_what_is_shared_is_refused(tmp_path: Path, group: str) -> None:
    with pytest.raises(UserError, match=f"all recipes have the same {group}; of a run they share"):
        read_levers(tmp_path, levers={"own": {group: 3}})


def test_a_setting_that_no_recipe_reads_is_refused(tmp_path: Path) -> None:
    run = {**micro_run(tmp_path), "decnas": {"budget": "60M"}}
    with pytest.raises(UserError, match=r"settings\.equal: decnas\.budget is 60M, .*, as would all recipes; leave it"):
        read_levers(tmp_path, settings={"equal": run})


def _study(folder: Path, methods: dict[str, Any]) -> str:
    path = folder / "study.yaml"
    run = {**micro_run(folder), "decnas": {"budget": "60M"}}
    path.write_text(yaml.safe_dump({"name": "study", "methods": methods, "run": run}, sort_keys=False))
    return str(path)


def test_a_setting_is_what_a_studys_runs_share_with_its_methods_own(tmp_path: Path) -> None:
    study = _study(tmp_path, {"deepfednas": {"client": {"clip": 3}}, "cotrain": {"client": {"clip": 2}}})
    base: dict[str, Any] = {"method": "cotrain", "client": {"momentum": 0.5}}
    config = read_levers(tmp_path, settings={"equal": study}, base=base).config("equal", Recipe(BASE, ()))
    assert (config.method, config.client.clip, config.client.momentum, config.client.lr) == ("cotrain", 2, 0.5, 0.05)
    with pytest.raises(UserError, match=r"study\.yaml compares deepfednas, cotrain; say in base which method"):
        read_levers(tmp_path, settings={"equal": study})
    alone = _study(tmp_path, {"own": {"method": "cotrain", "client": {"clip": 4}}})
    config = read_levers(tmp_path, settings={"equal": alone}).config("equal", Recipe(BASE, ()))
    assert (config.method, config.client.clip) == ("cotrain", 4)


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    run = micro_run(tmp_path)
    run["data"] |= {"name": "imagefolder", "root": "here"}
    path = write_levers(tmp_path, levers_file(tmp_path, settings={"equal": run}))
    assert read_ablation(path, "there").config("equal", Recipe(BASE, ())).data.root == "there"


@pytest.mark.parametrize("path", sorted(Path("studies/levers").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_of_levers_that_ship_can_be_read(path: Path) -> None:
    found = read_ablation(path)
    assert found.name == path.stem
    assert len(found.seeds) >= 3
    assert len(found.settings) >= 2
