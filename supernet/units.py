"""Quantities as people write them: ``60M``, ``1.2G``, ``6e7``."""

import math
import re

from supernet.errors import BudgetError

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_MILLISECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3}
_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([KMGBT]?)\s*", re.IGNORECASE)
_DURATION = re.compile(rf"\s*{_NUMBER}\s*(s|ms|us|µs)\s*")


def parse_quantity(text: str) -> int:
    """Read a positive count such as ``60M``, ``1.2G`` or ``6e7``.

    Raises:
        BudgetError: the text is no number, or not positive.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise BudgetError(f"cannot read {text!r} as a number; write it like 60M, 1.2G or 6e7")
    number, suffix = match.groups()
    value = float(number) * _SCALES[suffix.upper()]
    if not math.isfinite(value) or value < 1:
        raise BudgetError(f"{text!r} is not a positive number; write it like 60M, 1.2G or 6e7")
    return round(value)


def parse_milliseconds(text: str) -> float:
    """Read a duration such as ``5ms``, ``0.8s`` or ``300us`` in milliseconds.

    Raises:
        BudgetError: the text is no duration, or not positive.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BudgetError(f"cannot read {text!r} as a duration; write it like 5ms, 0.8s or 300us")
    number, unit = match.groups()
    value = float(number) * _MILLISECONDS[unit]
    if not math.isfinite(value) or value <= 0:
        raise BudgetError(f"{text!r} is not a positive duration; write it like 5ms, 0.8s or 300us")
    return value


def format_quantity(value: float) -> str:
    """Return a count for people in four digits, e.g. ``35.3M``; exact figures belong in JSON."""
    return _format(value, 4, ("", "K", "M", "G", "T"))


def format_bytes(value: float) -> str:
    """Return a size for people in three digits and decimal units, e.g. ``25.6 MB``."""
    return _format(value, 3, (" B", " kB", " MB", " GB", " TB"))


def _format(value: float, digits: int, units: tuple[str, ...]) -> str:
    scaled = value
    for unit in units:
        text = f"{scaled:.{digits}g}"
        # Rounded first: 999,999 is 1M and not 1000K.
        if abs(float(text)) < 1000 or unit == units[-1]:
            return f"{float(text):g}{unit}"
        scaled /= 1000
    raise AssertionError("units is empty")
