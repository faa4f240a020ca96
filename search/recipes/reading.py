"""Reader of the file of an ablation, which checks it as a whole before anything is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.search.comparison.studies.fields import budgets_of, mapping_of, merged, refuse_given_otherwise, seeds_of
from fedpareto.search.recipes.ablation import ALL, BASE, SURVIVORS, TOGETHER, Ablation
from fedpareto.search.recipes.checks import FIXED, check_ablation, is_fixed
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import typed, unknown_field
from fedpareto.supernet.common.formats.typed_yaml import read_yaml_mapping
from fedpareto.training.config.run import RunConfig, by_full_name

_FIELDS = ("name", "settings", "seeds", "budgets", "levers")

#: Optional fields of a file of levers.
_OPTIONAL = ("base", "together", "probe", "keep")

#: Names that tables have for something else.
_RESERVED = {"settings": (ALL,), "levers": (BASE, TOGETHER, SURVIVORS)}

#: Settings that are given elsewhere, and where.
_OWN = dict.fromkeys(("seed", "output"), "seeds are listed in the field seeds, runs lie in --output")


def read_ablation(path: Path, data_root: str | None = None) -> Ablation:
    """Read a file of levers; ``data_root`` replaces the folder of the images in all its settings.

    Raises:
        UserError: a field is unknown, missing or of another type, a lever changes what all recipes must share, changes
            nothing, or sets what a run would not read, two levers change the same, or the compute is not limited.
    """
    mapping = read_yaml_mapping(path)
    for name in mapping:
        if name not in _FIELDS + _OPTIONAL:
            raise UserError(f"{path}: {unknown_field(name, _FIELDS + _OPTIONAL)}")
    for name in _FIELDS:
        if name not in mapping:
            raise UserError(f"{path} lacks the field {name!r}; a file of levers has: {', '.join(_FIELDS)}")
    base = _base(path, mapping.get("base", {}))
    ablation = Ablation(
        path=path,
        name=typed(mapping["name"], str, f"{path}: name"),
        settings={
            name: _setting(f"{path}: settings.{name}", value, base, data_root)
            for name, value in _named(path, "settings", mapping["settings"]).items()
        },
        levers={
            name: _lever(f"{path}: levers.{name}", value)
            for name, value in _named(path, "levers", mapping["levers"]).items()
        },
        seeds=seeds_of(mapping["seeds"], f"{path}: seeds"),
        budgets=budgets_of(mapping["budgets"], f"{path}: budgets"),
        together=typed(mapping.get("together", True), bool, f"{path}: together"),
        probe=_number(mapping.get("probe", 0.2), f"{path}: probe"),
        keep=_number(mapping.get("keep", 0.5), f"{path}: keep"),
    )
    if not 0 < ablation.probe < 1:
        raise UserError(f"{path}: probe is {ablation.probe:g}; it must be a share of the compute between 0 and 1")
    if ablation.keep < 0:
        raise UserError(f"{path}: keep is {ablation.keep:g}; it must be points of accuracy, at least 0")
    check_ablation(ablation, base, [name for name, value in mapping["settings"].items() if not isinstance(value, str)])
    return ablation


def _number(value: object, where: str) -> float:
    return float(typed(value, float, where))


def _base(path: Path, value: object) -> Mapping[str, Any]:
    base = mapping_of({} if value is None else value, f"{path}: base")
    refuse_given_otherwise(base, _OWN, f"{path}: base")
    return base


def _named(path: Path, field: str, value: object) -> Mapping[str, object]:
    """Return a mapping of names, each of which can be part of a file's name."""
    if not isinstance(value, Mapping) or not value:
        example = "equal: studies/cifar10-small.yaml" if field == "settings" else "slow: {client: {lr: 0.01}}"
        raise UserError(f"{path}: {field} must be a mapping of names, e.g. {example}")
    for name in value:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise UserError(f"{path}: {field} has {name!r}; names are letters, digits, - and _")
        if name in _RESERVED[field]:
            raise UserError(f"{path}: {field} has {name!r}, which means something else in tables; name it otherwise")
    return value


def _setting(where: str, value: object, base: Mapping[str, Any], data_root: str | None) -> Mapping[str, Any]:
    """Return the settings of a run that all recipes share in one setting, the base recipe's among them."""
    run = _of_study(where, value, base) if isinstance(value, str) else mapping_of(value, where)
    refuse_given_otherwise(run, _OWN, where)
    if data_root is not None:
        run = {**run, "data": {**mapping_of(run.get("data", {}), f"{where}.data"), "root": data_root}}
    run = merged(run, base)
    if run.get("compute") is None:
        raise UserError(f"{where} has no compute; recipes are compared at the same client MACs, e.g. compute: 1.2T")
    return run


def _of_study(where: str, path: str, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that a study's runs share, with those of its one method, or of the base's method."""
    study = read_yaml_mapping(Path(path))
    run = mapping_of(study.get("run"), f"{where}: {path}: run")
    methods = mapping_of(study.get("methods"), f"{where}: {path}: methods")
    label = next(iter(methods)) if len(methods) == 1 else base.get("method")
    if label is None:
        raise UserError(
            f"{where}: {path} compares {', '.join(methods)}; say in base which method recipes train by, e.g. "
            f"base: {{method: {next(iter(methods), RunConfig().method)}}}"
        )
    own = mapping_of(methods.get(label) or {}, f"{where}: {path}: methods.{label}")
    return merged(run, {"method": label, **own})


def _lever(where: str, value: object) -> Mapping[str, Any]:
    changes = mapping_of({} if value is None else value, where)
    names = by_full_name(changes)
    if not names:
        raise UserError(f"{where} changes nothing; give it settings of a run, e.g. {{client: {{lr: 0.01}}}}")
    for name in names:
        if is_fixed(name):
            raise UserError(f"{where}: all recipes have the same {name}; of a run they share {', '.join(FIXED)}")
    return changes
