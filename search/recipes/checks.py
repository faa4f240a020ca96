"""Checks of levers: every run reads them, each changes the base, and they can be combined."""

import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fedpareto.search.recipes.ablation import BASE, TOGETHER, Ablation, Recipe, place
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import named
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.training.config.registries import check_names
from fedpareto.training.config.rules.coincidence import normal_form
from fedpareto.training.config.rules.unused_settings import unread, unread_words
from fedpareto.training.config.run import RunConfig, by_full_name

#: Settings that all recipes share: images, clients, compute, execution and evaluation. A name that ends in a dot is
#: that of a whole group.
FIXED = (
    *("seed", "compute", "rounds", "output", "init", "engine", "device", "precision", "partition."),
    *(f"data.{name}" for name in ("name", "root", "download", "validation", "images", "fit")),
    *("clients.", "execution.", "evaluation.", "checkpoint.", "tracking.", "flower."),
)

#: Exceptions, which recipes may change all the same: the number of clients that train in a round.
_FREE = ("clients.per_round",)


def is_fixed(name: str) -> bool:
    """Return True if no lever may change a setting, or a group of settings, given by its full name."""
    fits = any(name.startswith(known) if known.endswith(".") else name == known for known in FIXED)
    return (fits or f"{name}." in FIXED) and name not in _FREE


def check_ablation(ablation: Ablation, base: Mapping[str, Any], written: Collection[str]) -> None:
    """Refuse levers whose comparison would tell nothing.

    Args:
        ablation: all of it.
        base: settings of all recipes beside their own.
        written: names of the settings that stand in the file itself; a study's may be for methods that are not tried.

    Raises:
        UserError: a run would not read what is set, a lever leaves the base as it is or does what another does, levers
            that are to be tried together contradict each other, or a recipe trains no supernet here.
    """
    if ablation.together:
        _check_agree(ablation)
    for setting in ablation.settings:
        recipes = {recipe: ablation.config(setting, recipe) for recipe in _recipes(ablation)}
        for recipe, config in recipes.items():
            _check_recipe(ablation, setting, recipe, config, base)
        if setting in written:
            _check_setting_read(ablation, setting, list(recipes.values()))
        _check_distinct(ablation, setting, recipes)


def _recipes(ablation: Ablation) -> list[Recipe]:
    """Return all recipes, with those of any two levers, as any of them may survive."""
    pairs = itertools.combinations(ablation.levers, 2) if ablation.together else ()
    return [*ablation.recipes(), *(Recipe(TOGETHER, pair) for pair in pairs)]


def _check_recipe(ablation: Ablation, setting: str, recipe: Recipe, config: RunConfig, base: Mapping[str, Any]) -> None:
    """Refuse a recipe that trains no supernet here, or that sets what its runs do not read."""
    where = f"{ablation.path}: {place(recipe)} in setting {setting}"
    if config.spec.single_network:
        raise UserError(f"{where}: method {config.method} trains one network; recipes are compared of supernets")
    for name in ("cache", "fitness"):
        path = getattr(config, name)
        if path is not None and not is_file(Path(path)):
            raise UserError(f"{where}: {name} is {path}, which is no file; paths count from the working folder")
    with named(where):
        check_names(config)
    if config.engine != "in-process":
        raise UserError(f"{where}: engine is {config.engine}; recipes are compared in simulations, engine: in-process")
    given = [ablation.levers[lever] for lever in recipe.levers] or [base]
    own = {name for settings in given for name in by_full_name(settings)}
    for name, value in unread(config).items():
        if name in own:
            alone = ", or try no levers together with together: false" if len(recipe.levers) > 1 else ""
            raise UserError(f"{where}: {unread_words(name, value, config)}; leave it out{alone}")


def _check_setting_read(ablation: Ablation, setting: str, configs: list[RunConfig]) -> None:
    """Refuse a field of a setting that no run reads."""
    # The base's own settings are checked where it is.
    for name, value in unread(configs[0]).items():
        if all(name in unread(config) for config in configs):
            raise UserError(
                f"{ablation.path}: settings.{setting}: {unread_words(name, value, configs[0])}, as would all recipes; "
                "leave it out"
            )


def _check_distinct(ablation: Ablation, setting: str, recipes: Mapping[Recipe, RunConfig]) -> None:
    """Refuse a lever without effect, and two with the same."""
    single = {recipe: config for recipe, config in recipes.items() if len(recipe.levers) < 2}
    for (one, first), (other, second) in itertools.combinations(single.items(), 2):
        if normal_form(first) == normal_form(second):
            beside = "the base" if one.name == BASE else f"lever {one.name}"
            raise UserError(
                f"{ablation.path}: levers.{other.name} trains in setting {setting} exactly as {beside} does; change "
                "it, or leave it out"
            )


def _check_agree(ablation: Ablation) -> None:
    """Refuse two levers that set one thing to two values."""
    for one, other in itertools.combinations(ablation.levers, 2):
        first, second = by_full_name(ablation.levers[one]), by_full_name(ablation.levers[other])
        for name in sorted(first.keys() & second.keys()):
            if first[name] != second[name]:
                raise UserError(
                    f"{ablation.path}: levers {one} and {other} set {name} to {first[name]} and {second[name]}; leave "
                    "one out, or try none together with together: false"
                )
