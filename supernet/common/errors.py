"""Errors for users: one line that says what is wrong and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend.

    Commands print the message without a traceback and exit with code 2.
    """


class SpaceError(UserError):
    """A search space that cannot be found, read or built."""


class ArchitectureError(UserError):
    """An architecture that is malformed or lies outside its search space."""


class BudgetError(UserError):
    """A limit that cannot be read, or that no architecture of the space meets."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Known name that a mistyped one comes nearest to; None if none is near.

    >>> nearest_name("unifrom", ["uniform", "average"])
    'uniform'
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """Return the sentence that reports an unknown name together with the valid ones, and the nearest of them."""
    known = sorted(valid)
    nearest = nearest_name(name, known)
    meant = f" (did you mean {nearest!r}?)" if nearest else ""
    return f"unknown {what} {name!r}; valid: {', '.join(known)}{meant}"
