"""Figures of a report: a value's path, its exact number, and its text for people."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from fedpareto.supernet.common.formats.units import format_bytes

#: Function that formats a number for people.
Form = Callable[[float], str]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One value of a report as a page shows it.

    Attributes:
        key: its path in the report, names joined by dots.
        value: the exact number as JSON writes it; empty where the value is no number.
        text: the value for people.
    """

    key: str
    value: str
    text: str


def find_figure(report: Mapping[str, Any], key: str, form: Form) -> Figure | None:
    """Return the value at a path of a report, or None if the report has none there."""
    value: Any = report
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return Figure(key, "", "yes" if value else "no")
    if isinstance(value, int | float):
        return Figure(key, json.dumps(value), form(value))
    return Figure(key, "", value) if isinstance(value, str) else None


def number(value: float) -> str:
    """Return a count in full, anything else in six digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def score(value: float) -> str:
    """Return a fitness."""
    return f"{value:,.3f}"


def milliseconds(value: float) -> str:
    """Return a latency in three digits, e.g. ``3.21 ms``."""
    return f"{value:,.0f} ms" if abs(value) >= 1000 else f"{value:.3g} ms"


def size(value: float) -> str:
    """Return a size in bytes for people, e.g. ``1.96 MB``."""
    return format_bytes(value)


def share(value: float) -> str:
    """Return a share of one in percent."""
    return f"{value:.2%}"


def percent(value: float) -> str:
    """Return a figure in percent, under a name that says so."""
    return f"{value:.2f}"


def deviation(value: float) -> str:
    """Return a relative error in percent with its sign."""
    return f"{value:+.1%}"
