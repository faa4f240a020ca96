"""Quantities as people write them: ``60M``, ``1.2G``, ``6e7``."""

import math
import re

from supernet.errors import BudgetError

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([KMGBT]?)\s*", re.IGNORECASE)


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


def format_quantity(value: float) -> str:
    """Return a count for people, e.g. ``35.3M``; exact figures belong in JSON."""
    for suffix in ("G", "M", "K"):
        if abs(value) >= _SCALES[suffix]:
            return f"{value / _SCALES[suffix]:.4g}{suffix}"
    return f"{value:g}"


def format_bytes(value: float) -> str:
    """Return a size for people in decimal units, e.g. ``25.6 MB``."""
    for suffix in ("G", "M", "k"):
        scale = _SCALES[suffix.upper()]
        if abs(value) >= scale:
            return f"{value / scale:.3g} {suffix}B"
    return f"{value:.0f} B"
