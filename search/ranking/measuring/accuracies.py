"""Files of measured accuracies: JSON Lines, one architecture with its accuracy a line.

Files that this program writes begin with a header and have a digest in every line.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedpareto.search.ranking.measuring.bands import Subnet
from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, shown, unsealed
from fedpareto.supernet.common.storage.files import read_text, write_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.words import counted, option

FORMAT = "fedpareto-accuracies"
VERSION = 2


class AccuraciesError(UserError):
    """A file of accuracies that cannot be read or belongs to other settings."""


class Reading(NamedTuple):
    """Accuracy of a network on all images, and on each half of them where that is known."""

    accuracy: float
    halves: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class MeasuredArchitecture:
    """An architecture with its measured accuracy."""

    architecture: Architecture
    reading: Reading


def read_accuracies(path: Path) -> list[MeasuredArchitecture]:
    """Read the architectures and accuracies in a file; a header is passed over.

    Raises:
        AccuraciesError: a line is no architecture with an accuracy; the message names it.
        UserError: the file cannot be read.
    """
    found = [_measured(f"{path}:{number}", value) for number, value in _values(path) if "format" not in value]
    if not found:
        raise AccuraciesError(f'{path} holds no accuracies; a line is like {{"architecture": {{…}}, "accuracy": 0.63}}')
    return found


class AccuracyLog:
    """The accuracies of drawn subnets, in their order, each on the disk as soon as it is measured.

    Args:
        path: the file; it is continued if it was begun with the same header.
        header: JSON values that decide which subnets are measured and how.
        subnets: all subnets to be measured.

    Raises:
        AccuraciesError: the file was begun with another header, or holds other subnets.
    """

    def __init__(self, path: Path, header: dict[str, Any], subnets: Sequence[Subnet]) -> None:
        self._path, self._subnets = path, subnets
        self._header = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **header}))
        self.readings: list[Reading] = []
        if exists(path) and read_text(path).strip():
            self._go_on()
        else:
            write_text(path, json.dumps(sealed(self._header)) + "\n")

    @property
    def missing(self) -> Sequence[Subnet]:
        """Subnets that are not measured yet."""
        return self._subnets[len(self.readings) :]

    def append(self, reading: Reading) -> None:
        """Record the accuracy of the first missing subnet."""
        subnet = self.missing[0]
        line = {"band": subnet.band, **reading._asdict(), "architecture": subnet.architecture.to_json()}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(sealed(line)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AccuraciesError(f"cannot write {self._path}: {error.strerror or error}") from error
        self.readings.append(reading)

    def _go_on(self) -> None:
        text = read_text(self._path)
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            raise AccuraciesError(
                f"{self._path} is no file of accuracies; remove it, or choose another {option('output')}"
            )
        if whole != text:
            # The line that was being written when the command was killed.
            write_text(self._path, whole)
        (_, header), *lines = _values(self._path)
        self._check_header(header)
        if len(lines) > len(self._subnets):
            raise AccuraciesError(
                f"{self._path} holds more than {counted(len(self._subnets), 'subnet')}; choose another "
                f"{option('output')}"
            )
        for (number, value), subnet in zip(lines, self._subnets, strict=False):
            found = _measured(f"{self._path}:{number}", value)
            if found.architecture != subnet.architecture:
                raise AccuraciesError(
                    f"{self._path}:{number} holds another subnet than is drawn; choose another {option('output')}"
                )
            self.readings.append(found.reading)

    def _check_header(self, header: dict[str, Any]) -> None:
        for name, wanted in self._header.items():
            if header.get(name) != wanted:
                raise AccuraciesError(
                    f"{self._path} was begun with {name} {json.dumps(header.get(name))}, not {json.dumps(wanted)}; "
                    f"repeat the settings it was begun with, or choose another {option('output')}"
                )


def _values(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a file with the numbers of their lines."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        fields = fields_of(parse_json(line, where, AccuraciesError), where, AccuraciesError)
        yield number, unsealed(fields.values, where, AccuraciesError)


def _measured(where: str, value: dict[str, Any]) -> MeasuredArchitecture:
    accuracy = fields_of(value, where, AccuraciesError).number("accuracy", 0, 1)
    reading = Reading(accuracy, _halves(where, value.get("halves")))
    try:
        return MeasuredArchitecture(architecture_from_json(value.get("architecture")), reading)
    except ArchitectureError as error:
        raise AccuraciesError(f"{where}: {error}") from error


def _halves(where: str, value: object) -> tuple[float, float] | None:
    """Return the accuracies on each half of the images; lines of earlier versions have none."""
    if value is None:
        return None
    shares = isinstance(value, list) and all(type(each) in (int, float) and 0 <= each <= 1 for each in value)
    if not isinstance(value, list) or not shares or len(value) != 2:
        raise AccuraciesError(f"{where}: halves is {shown(value)}; it must be two numbers from 0 to 1")
    return float(value[0]), float(value[1])
