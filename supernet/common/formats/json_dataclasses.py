"""Reader of frozen dataclasses from JSON values, which checks every type; for files that may be damaged."""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def from_json(cls: type[T], value: Any) -> T:
    """Build the dataclass ``cls`` from a JSON object that holds its fields and no others.

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    built = _dataclass(cls, value)
    if not isinstance(built, cls):
        raise TypeError(f"expected {cls.__name__}, built {type(built).__name__}")
    return built


def _dataclass(cls: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected the fields of {cls.__name__}")
    hints, fields = typing.get_type_hints(cls), {field.name for field in dataclasses.fields(cls)}
    if not value.keys() <= fields:
        raise ValueError(f"unknown field {min(value.keys() - fields)}")
    try:
        return cls(**{name: _typed(hints[name], given) for name, given in value.items()})
    except TypeError as error:
        raise ValueError(f"a field of {cls.__name__} is missing") from error


def _typed(kind: Any, value: Any) -> Any:
    """Convert ``value`` to the annotated type ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        (wanted,) = [one for one in arguments if one is not types.NoneType]
        return None if value is None else _typed(wanted, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(arguments[0], one) for one in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(name): _typed(arguments[1], one) for name, one in value.items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value)
    # A bool is an int to Python, and a whole number of JSON may stand for a float if that can hold it.
    if type(value) is kind or (kind is float and type(value) is int and abs(value) <= sys.float_info.max):
        return value
    raise ValueError(f"{value!r:.40} is no {kind}")
