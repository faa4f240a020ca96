"""Strict parser of JSON from outside, and digests of JSON objects (seals); errors are one line."""

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpareto.supernet.common.errors import UserError

#: Deepest nesting that is read. What this program writes has less than ten levels.
MOST_LEVELS = 64

#: Most digits of a whole number that is read: it still fits a float.
MOST_DIGITS = 300

#: Field of a sealed object that holds the digest of all others.
DIGEST = "digest"

#: Makes the error of a text that is no JSON.
Complaint = Callable[[str], Exception]

#: Escapes of half a surrogate pair; a text without them need not be looked through.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, source: str, error: Complaint = UserError) -> Any:
    """Parse a JSON text; ``source`` names it in errors. A byte order mark is passed over.

    Raises:
        UserError: (or ``error``) the text is not JSON; a field is there twice; a number is NaN, infinite or too long;
            a string holds half a surrogate pair; the nesting is too deep.
    """
    try:
        value = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
        )
        _check(value, texts=_SURROGATE.search(text) is not None)
    except (ValueError, RecursionError) as reason:
        what = "it is nested too deeply" if isinstance(reason, RecursionError) else str(reason)
        raise error(f"{source} is not valid JSON: {what}") from reason
    return value


def shown(value: object) -> str:
    """Return a value as short text for an error, however long or deep it is."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with a seal: one more field, the digest of all others."""
    return {**body, DIGEST: _digest(body)}


def unsealed(value: Mapping[str, Any], source: str, error: Complaint = UserError) -> dict[str, Any]:
    """Return an object without its seal, which is checked; objects without one pass, as they may be hand-written.

    Raises:
        UserError: (or ``error``) the digest is not that of the other fields.
    """
    body = {name: inner for name, inner in value.items() if name != DIGEST}
    if DIGEST in value and value[DIGEST] != _digest(body):
        raise error(
            f'{source} is damaged (its digest does not fit); restore it, or if you changed it remove its "{DIGEST}"'
        )
    return body


def _digest(body: Mapping[str, Any]) -> str:
    # White space and the order of fields mean nothing.
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {shown(twice)} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; at most {MOST_DIGITS} are read")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.40} is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _check(value: object, *, texts: bool) -> None:
    """Refuse a value that is nested too deeply, or that has a text among ``texts`` that cannot be written."""
    level, depth = [value], 0
    while level:
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
        for inner in level if texts else ():
            if isinstance(inner, str):
                _check_text(inner)
        level, depth = [inner for outer in level for inner in _within(outer)], depth + 1


def _within(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _check_text(text: str) -> None:
    """Refuse half a surrogate pair, which a JSON escape can hold but no file or terminal can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair") from error
