"""Reader of YAML files into typed dataclasses, with one-line errors."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import build, typed_fields
from fedpareto.supernet.common.formats.yaml_text import parse_yaml
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.storage.path_checks import check_readable

T = TypeVar("T")

#: Largest file of settings, in bytes; what is larger is none.
_LARGEST = 1 << 20


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    check_readable(path, _LARGEST)
    content = parse_yaml(read_text(path), str(path))
    if content is None:
        raise UserError(f"{path} is empty; it must hold a mapping of fields, one 'name: value' a line")
    if not isinstance(content, dict):
        found = "a list" if isinstance(content, list) else "a single value"
        raise UserError(f"{path} must hold a mapping of fields, one 'name: value' a line; it holds {found}")
    return content


def from_mapping(cls: type[T], mapping: Mapping[str, Any], source: str) -> T:
    """Build the dataclass ``cls`` from ``mapping``; ``source`` names its origin in errors.

    Raises:
        UserError: a field is unknown, missing, of another type, or has a value that is not allowed.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"{source} must hold a mapping of fields, found {type(mapping).__name__}")
    with named(source):
        return build(cls, typed_fields(cls, mapping))


@contextlib.contextmanager
def named(source: str) -> Iterator[None]:
    """Prefix every error of the block with the source of the values.

    Raises:
        UserError: of the kind that the block raised.
    """
    try:
        yield
    except UserError as error:
        raise type(error)(f"{source}: {error}") from error
