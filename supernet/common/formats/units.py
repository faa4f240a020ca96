"""Parsers and formatters of quantities with units: ``60M``, ``1.2G``, ``4MB``, ``5ms``."""

import math
import re
import sys
from collections.abc import Mapping

from fedpareto.supernet.common.errors import BudgetError

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_MILLISECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3}
_BYTES = {
    f"{prefix}{'i' if base == 1024 else ''}": base**power
    for base in (1000, 1024)
    for power, prefix in enumerate(("", "k", "m", "g", "t"))
    if prefix or base == 1000
}
_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([KMGBT]?)\s*", re.IGNORECASE)
_SIZE = re.compile(rf"\s*{_NUMBER}\s*((?:[KMGT]i?)?)B?\s*", re.IGNORECASE)
_DURATION = re.compile(rf"\s*{_NUMBER}\s*(s|ms|us|µs)\s*")


def parse_quantity(text: str) -> int:
    """Read a positive count such as ``60M``, ``1.2G`` or ``6e7``.

    Raises:
        BudgetError: the text is no number, or not positive.
    """
    return round(_parse(text, _QUANTITY, _SCALES, 1, "number; write it like 60M, 1.2G or 6e7"))


def parse_bytes(text: str, *, least: int = 1) -> int:
    """Read a size such as ``4MB``, ``500 kB`` or ``2MiB`` in bytes, of ``least`` bytes or more.

    Raises:
        BudgetError: the text is no size, or a smaller one.
    """
    return round(_parse(text, _SIZE, _BYTES, least, "size; write it like 4MB, 500kB or 2MiB"))


def parse_milliseconds(text: str) -> float:
    """Read a duration such as ``5ms``, ``0.8s`` or ``300us`` in milliseconds.

    Raises:
        BudgetError: the text is no duration, or not positive.
    """
    return _parse(text, _DURATION, _MILLISECONDS, sys.float_info.min, "duration; write it like 5ms, 0.8s or 300us")


def _parse(text: str, pattern: re.Pattern[str], scales: Mapping[str, float], least: float, what: str) -> float:
    match = pattern.fullmatch(text)
    if match is None:
        raise BudgetError(f"cannot read {text!r} as a {what}")
    number, unit = match.groups()
    value = float(number) * scales[unit.lower()]
    if not least <= value < math.inf:
        raise BudgetError(f"{text!r} is not a positive {what}")
    return value


def format_quantity(value: float) -> str:
    """Format a count for people in four digits, e.g. ``35.3M``; exact figures belong in JSON."""
    return _format(value, 4, ("", "K", "M", "G", "T"))


def format_at_least(value: float) -> str:
    """Format the least limit of at most four digits that is not below ``value``, e.g. ``60M``.

    Rounding to the nearest would not do: a network of 35,344,999 MACs is not within 35.34M.
    """
    step = 10.0 ** max(0, math.floor(math.log10(value)) - 3) if value >= 1 else 1.0
    return format_quantity(math.ceil(value / step) * step)


def format_bytes(value: float) -> str:
    """Format a size for people in three digits and decimal units, e.g. ``25.6 MB``."""
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
