"""YAML mappings read into typed dataclasses, with one-line errors."""

import re
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from supernet.errors import UserError
from supernet.files import read_text

T = TypeVar("T")


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {flatten(str(error))}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of fields, found {type(content).__name__}")
    return content


def from_mapping(cls: type[T], mapping: Mapping[str, Any], source: str) -> T:
    """Build the dataclass ``cls`` from ``mapping``; ``source`` names its origin in errors.

    Raises:
        UserError: a field is unknown, missing, or of another type.
    """
    # Imported here: what only reads presets by value never pays for it.
    from jsonargparse import ArgumentParser  # noqa: PLC0415

    if not isinstance(mapping, Mapping):
        raise UserError(f"{source} must hold a mapping of fields, found {mapping!r}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "value")
    try:
        parsed = parser.parse_object({"value": dict(mapping)})
        value = parser.instantiate(parsed).value
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {flatten(str(error))}") from error
    if not isinstance(value, cls):
        raise TypeError(f"expected {cls.__name__}, built {type(value).__name__}")
    return value


def flatten(message: str) -> str:
    """Return a parser's message as one line a person can read."""
    message = re.sub(r"Problem with given class_path '[^']*':", "", message)
    message = re.sub(r'Parser key "(?:value\.)?([^"]*)":', r"\1:", message)
    message = re.sub(r"<class '([^']*)'>", r"\1", message)
    message = message.replace("typing.", "").replace("value.", "")
    return re.sub(r"\s+", " ", message).strip()
