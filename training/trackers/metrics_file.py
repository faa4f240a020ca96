"""``metrics.jsonl``: one line a round, always, flushed at once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supernet.errors import UserError
from supernet.files import read_text, write_text
from training.records import RoundRecord


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
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record.to_json()) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Nothing: checkpoints are folders of their own."""

    def close(self) -> None:
        """Nothing: every line was flushed."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics file as plain values.

    Raises:
        UserError: the file cannot be read.
    """
    return [json.loads(line) for line in read_text(path).splitlines()]


def _kept_lines(text: str, done: int) -> list[str]:
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if json.loads(line)["round"] <= done]
