"""Ranges of settings, said once: at the field they are of, where the check, its words and the tests read them."""

import dataclasses
import math
from typing import Any

from fedpareto.supernet.common.errors import UserError

_KEY = "bound"


@dataclasses.dataclass(frozen=True)
class Bound:
    """The range of a number; NaN is in none.

    Attributes:
        least: smallest value in it; None where ``above`` or nothing bounds it from below.
        above: largest value below it.
        most: largest value in it; None where ``below`` or nothing bounds it from above.
        below: smallest value above it; infinity where any finite value will do.
        hint: said after the range, e.g. what a special value means.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    hint: str = ""

    def holds(self, value: float) -> bool:
        """Return True if a value is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The range in words that go on after "it must", e.g. "be at least 1"."""
        upper = self.most if self.below is None or self.below == math.inf else self.below
        if upper is None:
            return f"{self._lower()}{self.hint}"
        if self.least is not None:
            return f"be from {self.least:g} to {'below ' if self.most is None else ''}{upper:g}{self.hint}"
        inner = f"above {self.above:g} and at most" if self.most is not None else f"between {self.above:g} and"
        return f"be {inner} {upper:g}{self.hint}"

    def _lower(self) -> str:
        if self.least is not None:
            return "not be negative" if self.least == 0 else f"be at least {self.least:g}"
        return "be positive" if self.above == 0 else f"be above {self.above:g}"


def bounded(
    default: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> Any:
    """A dataclass's field whose values are in a range, or None where the default is; see ``Bound``.

    Raises:
        ValueError: the range has not exactly one lower end, or two upper ones.
    """
    if (least is None) == (above is None) or (most is not None and below is not None):
        raise ValueError("a range has one lower end, and at most one upper one")
    return dataclasses.field(default=default, metadata={_KEY: Bound(least, above, most, below, hint)})


def bounds_of(settings: Any) -> dict[str, Bound]:
    """The ranges of a dataclass's fields, by name, of those that have one."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(settings) if _KEY in field.metadata}


def check_bounds(settings: Any, group: str = "", error: type[UserError] = UserError) -> None:
    """Refuse values of a dataclass's fields that are out of their ranges.

    Args:
        settings: the dataclass.
        group: what it is called in a configuration, before the names of its fields; none for the configuration itself.
        error: what is raised.

    Raises:
        UserError: a value is out of its range; ``error``, if that is given.
    """
    for name, bound in bounds_of(settings).items():
        value = getattr(settings, name)
        # A word in place of a number, such as auto, is checked by its type.
        if isinstance(value, int | float) and not bound.holds(value):
            raise error(f"{group and f'{group}.'}{name} is {value}; it must {bound}")
