"""Bytes of the messages between server and clients, both ways."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that clients sent, and bytes that they were sent; adds with ``+``.

    Attributes:
        up: bytes from clients to the server.
        down: bytes from the server to clients.

    Raises:
        ValueError: a number is negative.
    """

    up: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        if self.up < 0 or self.down < 0:
            raise ValueError("a number of bytes is negative")

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.up + other.up, self.down + other.down)


NO_TRAFFIC = Traffic()


def spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass as plain JSON values, each traffic among them as two keys in its place.

    ``traffic`` is ``bytes_up`` and ``bytes_down``, ``evaluation_traffic`` the same after ``evaluation_``.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith("traffic"):
            prefix = name.removesuffix("traffic")
            found |= {f"{prefix}bytes_{way}": value[way] for way in ("up", "down")}
        else:
            found[name] = value
    return found


def gathered(values: Any, *names: str) -> Any:
    """JSON values with the two keys of every traffic as one value under its name; the inverse of ``spread``.

    Raises:
        ValueError: one of the ``names`` is a key already, or there is but one of its two keys.
    """
    if not isinstance(values, Mapping):
        return values
    rest = dict(values)
    for name in names:
        if name in values:
            raise ValueError(f"unknown field {name}")
        prefix = name.removesuffix("traffic")
        keys = {way: f"{prefix}bytes_{way}" for way in ("up", "down")}
        missing = [key for key in keys.values() if key not in values]
        if len(missing) == 1:
            raise ValueError(f"field {missing[0]} is missing")
        if not missing:
            rest[name] = {way: rest.pop(key) for way, key in keys.items()}
    return rest
