"""Reader of a YAML file with the budgets of many devices, each of which a search answers."""

import re
from collections.abc import Mapping
from pathlib import Path

from fedpareto.search.query.budgets import Budgets, check_budgets
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, named, read_yaml_mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_targets(path: Path) -> dict[str, Budgets]:
    """Read budgets by device name, from a mapping of names to budget options, such as ``flops_budget: 60M``.

    Raises:
        UserError: the file is no such mapping, a name is no plain file name, or a budget cannot be read.
    """
    targets = {}
    for name, fields in read_yaml_mapping(path).items():
        source = f"{path}: {name}"
        if not _NAME.fullmatch(name):
            raise UserError(f"{source} is no name of a target; use letters, digits, '.', '_' and '-'")
        if not isinstance(fields, Mapping):
            raise UserError(f"{source} must hold a mapping of budgets, such as flops_budget: 60M")
        spelled = {field.replace("-", "_"): value for field, value in fields.items()}
        targets[name] = from_mapping(Budgets, spelled, source)
        with named(source):
            check_budgets(targets[name])
    if not targets:
        raise UserError(f"{path} holds no target; write one like phone: {{flops_budget: 60M}}")
    return targets
