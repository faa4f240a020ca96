"""Conversion of values from files and the command line to the type of a field, or a one-line error."""

import contextlib
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from fedpareto.supernet.common.errors import UserError, nearest_name
from fedpareto.supernet.common.formats.yaml_text import WrittenFloat, WrittenInt, parse_yaml, read_scalar

T = TypeVar("T")

_SWITCHED = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

#: Words that a switch understands on the command line and in files.
SWITCH_WORDS = tuple(_SWITCHED)

#: Whole numbers fit 64 bits: what is larger fits neither arrays nor files.
_LARGEST = 2**63 - 1

#: Most characters of a value that an error repeats.
_SHOWN = 80

_EMPTY = "{} is empty; give it a value, or leave it out"

#: Names of the simple types for people.
_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


class _MisfitError(Exception):
    """A value does not fit one of the types that a field may have; another type may still fit."""


def typed(value: object, hint: Any, field: str) -> Any:
    """Convert ``value`` to the type ``hint``.

    Where the type is text, a number becomes the text it was written as. Where it is a number, quoted digits become one.
    Where it is a list, a single value becomes a list of one.

    Args:
        value: from YAML, JSON or the command line.
        hint: type of the field: a simple type, Literal, tuple, dataclass, or a union of these and None.
        field: its name in errors.

    Raises:
        UserError: naming the field, the value and what is allowed.
    """
    for option in _alternatives(hint):
        with contextlib.suppress(_MisfitError):
            return _converted(value, option, field)
    raise UserError(f"{field} is {_shown(value)}; it must be {_words(hint)}{_meant(value, hint)}")


def typed_text(text: str, hint: Any, field: str) -> Any:
    """Convert text of the command line to the type ``hint``; ``null`` is None, ``[a, b]`` a list.

    Raises:
        UserError: naming the field, the value and what is allowed.
    """
    options = _alternatives(hint)
    if not text:
        # Most often a variable of the shell that is not set.
        raise UserError(_EMPTY.format(field))
    if text == "null" and types.NoneType in options:
        return None
    if text.startswith("[") and any(typing.get_origin(option) is tuple for option in options):
        return typed(parse_yaml(text, f"{field} {_shown(text)}"), hint, field)
    return typed(text, hint, field)


def typed_fields(cls: type, mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert the values in ``mapping`` to the types of the fields of dataclass ``cls``; groups stay mappings.

    A class that has a ``check_mapping`` is asked before; one that has a ``modern_mapping`` makes of what older programs
    wrote what it would be today.

    Raises:
        UserError: a field is unknown, or its value is of another type; its name begins with ``prefix``.
    """
    hints = _hints(cls)
    if not prefix and hasattr(cls, "check_mapping"):
        cls.check_mapping(mapping)
    if hasattr(cls, "modern_mapping"):
        mapping = cls.modern_mapping(mapping)
    values = {}
    for name, value in mapping.items():
        if name not in hints:
            raise UserError(unknown_field(f"{prefix}{name}", hints, prefix))
        if not dataclasses.is_dataclass(hints[name]):
            values[name] = typed(value, hints[name], f"{prefix}{name}")
        elif isinstance(value, Mapping):
            values[name] = typed_fields(hints[name], value, f"{prefix}{name}.")
        else:
            raise UserError(f"{prefix}{name} is {_shown(value)}; it must be {_words(hints[name])}")
    return values


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a dataclass from typed values, as ``typed_fields`` gives them.

    Raises:
        UserError: a field is missing, or values do not go together.
    """
    hints: dict[str, Any] = _hints(cls)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f"the field '{prefix}{field.name}' is missing")
    return cls(
        **{
            name: build(groups[name], value, f"{prefix}{name}.") if name in groups else value
            for name, value in values.items()
        }
    )


def unknown_field(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the sentence that reports an unknown field with the right name, the nearest known ones, or all of them."""
    known = [f"{prefix}{field}" for field in known]
    group, dot, field = name.partition(".")
    if dot and group in known:
        inner = field.replace("-", "_")
        return f"there is no field {name!r}; fields of a group are written below it: {group}: {{{inner}: …}}"
    nearest = nearest_name(name, known)
    meant = f"did you mean {nearest!r}?" if nearest else f"there are: {', '.join(known)}"
    return f"there is no field {name!r}; {meant}"


def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _converted(value: object, hint: Any, field: str) -> Any:
    """Convert ``value`` to a single type, not a union."""
    if hint in _SIMPLE:
        return _SIMPLE[hint](value, field)
    if typing.get_origin(hint) is Literal:
        return _literal(value, typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return _tuple(value, typing.get_args(hint)[0], field)
    if isinstance(value, hint):
        return value
    if not isinstance(value, Mapping):
        raise _MisfitError
    return build(hint, typed_fields(hint, value, f"{field}."), f"{field}.")


def _none(value: object, field: str) -> None:
    del field
    if value is not None:
        raise _MisfitError


def _text(value: object, field: str) -> str:
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if isinstance(value, bool):
        raise UserError(f"{field} is {_shown(value)}; it must be text: write it in quotes")
    if not isinstance(value, str | int | float):
        raise _MisfitError
    text = value if isinstance(value, str) else repr(value)
    if not text:
        raise UserError(_EMPTY.format(field))
    if "\0" in text:
        raise UserError(f"{field} is {_shown(text)}; text must hold no NUL character")
    return text


def _integer(value: object, field: str) -> int:
    number = read_scalar(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise _MisfitError
    if abs(number) > _LARGEST:
        raise UserError(f"{field} is {_shown(value)}; it must be a whole number up to {_LARGEST:,}")
    return int(number)


def _number(value: object, field: str) -> float:
    number = read_scalar(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _MisfitError
    # Written with digits enough, a number is infinite too.
    if abs(number) > sys.float_info.max or math.isnan(number):
        raise UserError(f"{field} is {_shown(value)}; it must be a finite number")
    return float(number)


def _switch(value: object, field: str) -> bool:
    del field
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _SWITCHED:
        return _SWITCHED[value.lower()]
    raise _MisfitError


_SIMPLE = {types.NoneType: _none, str: _text, int: _integer, float: _number, bool: _switch}


def _literal(value: object, allowed: tuple[Any, ...]) -> Any:
    written = value.text if isinstance(value, WrittenInt | WrittenFloat) else value
    for candidate in allowed:
        if type(candidate) is type(written) and candidate == written:
            return candidate
    raise _MisfitError


def _tuple(value: object, inner: Any, field: str) -> tuple[Any, ...]:
    if isinstance(value, list | tuple):
        return tuple(typed(item, inner, f"{field}[{index}]") for index, item in enumerate(value))
    # A value alone is a list of one.
    return (_converted(value, inner, field),)


def _shown(value: object) -> str:
    """Return a value as one short line for an error."""
    if value is None:
        return "empty (null)"
    if isinstance(value, Mapping):
        return "a mapping of fields"
    if isinstance(value, WrittenInt | WrittenFloat):
        value = value.text
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, list | tuple):
        value = f"[{', '.join(_shown(item) for item in value[:3])}{', …' if len(value) > 3 else ''}]"
    text = str(value)
    text = text if text.isprintable() and text.strip() == text and text else repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _words(hint: Any) -> str:
    """Return a description of a type's allowed values for people."""
    return " or ".join(_word(option) for option in _alternatives(hint) if option is not types.NoneType)


def _meant(value: object, hint: Any) -> str:
    """Return a question for the word that comes nearest to the one that was given, where words are listed."""
    words = [each for option in _alternatives(hint) for each in typing.get_args(option) if isinstance(each, str)]
    nearest = nearest_name(value, words) if isinstance(value, str) else None
    return f" (did you mean {nearest!r}?)" if nearest else ""


def _word(hint: Any) -> str:
    if hint in _KINDS:
        return _KINDS[hint]
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(repr(value) for value in typing.get_args(hint))}"
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return "a list of groups" if dataclasses.is_dataclass(inner) else f"a list, such as {_example(inner)}"
    return f"a group of fields: {', '.join(_hints(hint))}"


def _example(inner: Any) -> str:
    return "[a, b]" if inner is str else "[1, 2]"
