"""``metrics.jsonl``: one line a round, always, flushed at once; one also for a round that was lost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supernet.errors import UserError
from supernet.files import read_text, write_text
from training.records import LostRound, RoundRecord


class MetricsFile:
    """Appends every round to ``path``; lines after round ``done`` (of a killed process) are dropped first.

    Raises:
        UserError: the file cannot be read or written.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        if path.exists():
            # A killed process may have left rounds after its checkpoint, and half a line.
            write_text(path, "".join(_kept_lines(read_text(path), done)))

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Nothing: lines are whole rounds."""

    def round_done(self, record: RoundRecord) -> None:
        """Append the record."""
        self._append(record)

    def round_lost(self, record: LostRound) -> None:
        """Append the record."""
        self._append(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Nothing: checkpoints are folders of their own."""

    def close(self) -> None:
        """Nothing: every line was flushed."""

    def _append(self, record: RoundRecord | LostRound) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record.to_json()) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics file's merged rounds as plain values.

    Raises:
        UserError: the file cannot be read.
    """
    return [record for record in map(json.loads, read_text(path).splitlines()) if _merged(record)]


def _kept_lines(text: str, done: int) -> list[str]:
    """Return whole lines up to round ``done``, and all of rounds that were lost: those will be tried again."""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    records = [json.loads(line) for line in lines]
    return [line for line, record in zip(lines, records, strict=True) if record["round"] <= done or not _merged(record)]


def _merged(record: Mapping[str, Any]) -> bool:
    merged: bool = record.get("merged", True)
    return merged
