"""Fields of study files: groups of settings merged over one another, seeds, budgets and configurations of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedpareto.fitness.score import score
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.formats.typed_values import typed
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, named
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.genes import smallest_genes
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.run import RunConfig


def mapping_of(value: object, where: str) -> Mapping[str, Any]:
    """Return a group of settings.

    Raises:
        UserError: the value is none; it says where.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping of settings")
    return value


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the fields of ``own``, group by group."""
    result = dict(base)
    for name, value in own.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def quiet_config(fields: Mapping[str, Any], where: str) -> RunConfig:
    """Return the configuration of a run that is one of many: without progress, and without wandb unless asked for.

    Raises:
        UserError: a field is unknown, or of another type, or values do not go together; it says where.
    """
    tracking = {"wandb": "off", **mapping_of(fields.get("tracking", {}), f"{where}.tracking"), "progress": False}
    config = from_mapping(config_type(), {**fields, "tracking": tracking}, where)
    if config.privacy.withheld:
        raise UserError(
            f"{where}: privacy.statistics is withheld with privacy.noise, and runs are compared at equal compute of "
            "their clients: give privacy.statistics exact, which (ε, δ) does not cover"
        )
    return config


def refuse_given_otherwise(settings: Mapping[str, Any], instead: Mapping[str, str], where: str) -> None:
    """Refuse settings of runs that a study file gives by fields of its own.

    Args:
        settings: settings of runs.
        instead: the right way to give each such setting, by its name.
        where: name of the settings in errors.

    Raises:
        UserError: there is one.
    """
    for name, words in instead.items():
        if name in settings:
            raise UserError(f"{where}.{name}: {words}; leave it out")


def budgets_of(value: object, where: str) -> list[int]:
    """Read budgets of MACs, ascending.

    Raises:
        UserError: there are none, or one is no quantity; it says where.
    """
    texts = typed(value, tuple[str, ...], where)
    if not texts:
        raise UserError(f"{where} is empty; it must list MACs, e.g. [20M, 60M]")
    with named(where):
        return sorted({parse_quantity(text) for text in texts})


def seeds_of(value: object, where: str) -> list[int]:
    """Read the seeds of runs.

    Raises:
        UserError: there are none, one is no whole number of at least 0, or one is there twice; it says where.
    """
    seeds = typed(value, tuple[int, ...], where)
    if not seeds or min(seeds) < 0:
        raise UserError(f"{where} is {list(seeds)}; it must list whole numbers of at least 0")
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise UserError(f"{where} has {twice} twice; a run with the same seed is the same run")
    return list(seeds)


def check_budgets(space_name: str, budgets: Sequence[int]) -> None:
    """Refuse a missing space and a budget below its smallest network, before hours of training.

    Args:
        space_name: preset or file of the space.
        budgets: MACs, ascending.

    Raises:
        UserError: there is no such space.
        BudgetError: the least budget is below the smallest network.
    """
    space = load_space(space_name)
    least = int(score(space, smallest_genes(space)).macs[0])
    if budgets[0] < least:
        raise BudgetError(
            f"budgets has {budgets[0]:,} MACs and the smallest network of {space.name} {least:,}; raise it"
        )
