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

#: A parser's message of a value that fits none of several types, and of one that does not fit its type.
_UNION = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: (?P<expected>- Expected .*?) "
    r"Given value type: \w+ Given value: (?P<value>.*)"
)
_MISTAKE = re.compile(r": (?P<expected>(?:- )?Expected an? .*?)\. Got value: (?P<value>.*)")

#: What people call the types of fields.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "tuple": "a list, such as [1, 2]",
}


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
    message = re.sub(r"Group '([^']*)' does not accept option '([^']*)'", r"there is no field '\1.\2'", message)
    message = re.sub(r"<class '([^']*)'>", r"\1", message)
    message = message.replace("typing.", "").replace("value.", "")
    message = re.sub(r"\s+", " ", message).strip()
    message = _UNION.sub(lambda union: f"{union['expected']}. Got value: {union['value']}", message)
    return _MISTAKE.sub(lambda mistake: f" is {mistake['value']}; it must be {_words(mistake['expected'])}", message)


def _words(expected: str) -> str:
    """Return what a parser expected as people say it."""
    kinds = [kind for kind in re.split(r" ?- Expected an? |^Expected an? ", expected) if kind not in ("", "NoneType")]
    return " or ".join(_KINDS.get(kind) or re.sub(r"^Literal\[(.*)\]$", r"one of \1", kind) for kind in kinds)
