"""Code of somebody else: what it is, what it raises and what it returns is told in one line that names it."""

import contextlib
import inspect
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

from fedpareto.supernet.common.errors import UserError

#: Says what is wrong with a thing; None if nothing is.
Fault = Callable[[Any], str | None]


def told(error: BaseException) -> str:
    r"""An exception in one line, with its type.

    >>> told(ValueError("no\nsuch thing"))
    'ValueError: no such thing'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def short(value: object) -> str:
    """A value of somebody else in one line, cut where it is long.

    >>> short([0] * 100)
    '[0, 0, 0, 0, 0, 0, ...]'
    """
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception:
        return f"of type {type(value).__name__}"


@contextlib.contextmanager
def blamed(what: str, error_type: type[UserError] = UserError) -> Iterator[None]:
    """Turn whatever is raised in the block into one line that names whose code it is; errors for users stay.

    Raises:
        UserError: something was raised; ``what`` names the code.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise error_type(f"{what} failed: {told(error)}") from error


def not_taking(*parameters: str) -> Fault:
    """Fault of what is to be called with the given parameters, in their order: that it cannot be.

    >>> not_taking("space", "tensors")(3)
    'it is 3; it must be a function or a class that takes (space, tensors)'
    """
    wanted = f"it must be a function or a class that takes ({', '.join(parameters)})"

    def fault(thing: Any) -> str | None:
        if not callable(thing):
            return f"it is {short(thing)}; {wanted}"
        try:
            signature = inspect.signature(thing)
        except (ValueError, TypeError):
            # Some that are written in C say nothing.
            return None
        try:
            signature.bind(*parameters)
        except TypeError as error:
            return f"its parameters are {signature}; {wanted} ({error})"
        return None

    return fault
