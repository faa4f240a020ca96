"""Arguments of public functions: checked by their annotations, so that a mistake is one line and not a traceback."""

import functools
import inspect
import reprlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import addressed

P = ParamSpec("P")
R = TypeVar("R")

#: Arguments that are named by nobody beforehand.
_OPEN = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)

#: Words for the types that arguments have most.
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments that its annotations do not allow.

    Scalars of numpy pass as Python's own numbers. Annotations in quotes, and protocols that are not runtime_checkable,
    are not looked at.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UserError(f"{function.__name__}(): {error}") from error
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.annotation is parameter.empty or parameter.kind in _OPEN:
                continue
            bound.arguments[name] = _checked(name, value, parameter.annotation)
        with addressed("python"):
            return function(*bound.args, **bound.kwargs)

    return called


def plain(value: Any) -> Any:
    """A scalar of numpy as Python's own number; anything else as it is."""
    scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if scalar else value


def _checked(name: str, given: Any, annotation: Any) -> Any:
    value = plain(given)
    if _allowed(value, annotation):
        return value
    raise UserError(f"{name} is {reprlib.repr(value)}; it must be {' or '.join(_words(annotation))}")


def _allowed(value: Any, annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_allowed(value, each) for each in get_args(annotation))
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(annotation))
    if annotation is None:
        return value is None
    # True is a whole number to Python alone.
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object:
        return True
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return True
    # Text is a sequence of letters, which is never meant.
    if isinstance(value, str) and kind is not str:
        return False
    return isinstance(value, kind)


def _words(annotation: Any) -> list[str]:
    """The values that an annotation allows, in words."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [word for each in get_args(annotation) for word in _words(each)]
    if origin is Literal:
        return [repr(each) for each in get_args(annotation)]
    kind = type(None) if annotation is None else origin or annotation
    return [_WORDS.get(kind, f"of type {getattr(kind, '__name__', str(kind))}")]
