"""Reader of the fields of a JSON object, which checks types and ranges so that other code can trust the values."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import Complaint, shown

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Reader of the fields of one JSON object.

    Every reader raises ``complaint`` with one line that names the source, the field, its value and what is allowed.

    Attributes:
        values: the object.
        source: the file it is from.
        path: path of the object in the file; empty for the outermost one.
        complaint: makes an error of a line.
    """

    values: Mapping[str, Any]
    source: str
    path: str = ""
    complaint: Complaint = UserError

    def has(self, name: str) -> bool:
        """Return True if a field is there and not null."""
        return self.values.get(name) is not None

    def value(self, name: str) -> Any:
        """Return a field's value of any type."""
        if name not in self.values:
            raise self.complaint(f"{self.source} lacks the field {self._named(name)}")
        return self.values[name]

    def whole(self, name: str, low: int = 0) -> int:
        """Return a whole number of at least ``low``."""
        return self._whole(name, self.value(name), low)

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Return a number from ``low`` to ``high``."""
        return self._number(name, self.value(name), low, high)

    def text(self, name: str) -> str:
        """Return a text."""
        return self._text(name, self.value(name))

    def choice(self, name: str, allowed: Sequence[T]) -> T:
        """Return one of the ``allowed`` values."""
        value = self.value(name)
        for one in allowed:
            if type(one) is type(value) and one == value:
                return one
        raise self._wrong(name, value, f"one of {', '.join(map(repr, allowed))}")

    def wholes(self, name: str, low: int = 0) -> tuple[int, ...]:
        """Return a list of whole numbers of at least ``low``."""
        return self._list(name, lambda where, item: self._whole(where, item, low))

    def numbers(self, name: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        """Return a list of numbers from ``low`` to ``high``."""
        return self._list(name, lambda where, item: self._number(where, item, low, high))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        return self._list(name, self._text)

    def wholes_or_nulls(self, name: str) -> tuple[int | None, ...]:
        """Return a list of whole numbers of at least 0, and None where there is null."""
        return self._list(name, lambda where, item: None if item is None else self._whole(where, item, 0))

    def lists_of_wholes(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Return a list of lists of whole numbers of at least 0."""
        return self._list(name, lambda where, item: self._alone(where, item).wholes(where))

    def lists_of_numbers(self, name: str) -> tuple[tuple[float, ...], ...]:
        """Return a list of lists of numbers."""
        return self._list(name, lambda where, item: self._alone(where, item).numbers(where))

    def within(self, name: str) -> "Fields":
        """Return the object that a field holds."""
        return self._fields(name, self.value(name))

    def each(self, name: str) -> tuple["Fields", ...]:
        """Return the objects of a list."""
        return self._list(name, self._fields)

    def _alone(self, name: str, value: object) -> "Fields":
        return dataclasses.replace(self, values={name: value})

    def _fields(self, name: str, value: object) -> "Fields":
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return dataclasses.replace(self, values=value, path=f"{self.path}{name}.")

    def _list(self, name: str, read: Callable[[str, object], T]) -> tuple[T, ...]:
        found = self.value(name)
        if not isinstance(found, list):
            raise self._wrong(name, found, "a list")
        return tuple(read(f"{name}[{index}]", item) for index, item in enumerate(found))

    def _whole(self, name: str, value: object, low: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self._wrong(name, value, f"a whole number of at least {low}")
        return value

    def _number(self, name: str, value: object, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            between = "" if low == -math.inf else f" of at least {low:g}"
            raise self._wrong(name, value, f"a number{between if high == math.inf else f' from {low:g} to {high:g}'}")
        return float(value)

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        return value

    def wrong(self, name: str, wanted: str) -> Exception:
        """Return the error for a field of the wrong type or out of range."""
        return self._wrong(name, self.values.get(name), wanted)

    def _wrong(self, name: str, value: object, wanted: str) -> Exception:
        return self.complaint(f"{self.source}: {self._named(name)} is {shown(value)}; it must be {wanted}")

    def _named(self, name: str) -> str:
        return f"{self.path}{name}"


def fields_of(value: object, source: str, complaint: Complaint = UserError) -> Fields:
    """Return the fields of the outermost object of a file.

    Raises:
        UserError: (or ``complaint``) it is no object.
    """
    if not isinstance(value, dict):
        raise complaint(f"{source} must be a JSON object, found {shown(value)}")
    return Fields(value, source, "", complaint)
