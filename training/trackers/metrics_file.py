"""Metrics file ``metrics.jsonl``: one line for every round, flushed at once; also for a round that was not merged.

The file is for people and their plots, and no round depends on it. So damage does not end a run: all whole lines stay,
and a round whose line is lost has a line that says so, ``{"round": 3, "lost": true}``.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import sync, write_text
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.trackers.records import LostRound, RoundRecord, lost_from_json, record_from_json

#: Name of a damaged file that was mended, beside it.
DAMAGED = ".damaged"

#: Most bytes that are read to find how far a run is.
_TAIL = 1 << 18


@dataclasses.dataclass(frozen=True)
class _Line:
    """Line of the file that could be read: its text, its fields, its round, and its kind."""

    text: str
    fields: Mapping[str, Any]
    round: int
    kind: Literal["merged", "unmerged", "lost"]


class MetricsFile:
    """Tracker that appends every round to ``path``; lines after round ``done`` (of a killed process) are dropped first.

    Raises:
        UserError: the file cannot be read or written.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._path, self._done = path, done
        self.remark = mend(path, done)

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Do nothing, as lines are whole rounds."""

    def round_done(self, record: RoundRecord) -> None:
        """Append the record; it replaces a record of the round from a run that stopped before its evaluation."""
        if record.round == self._done:
            others = [line for line in _read(self._path).lines if line.kind == "unmerged" or line.round != record.round]
            write_text(self._path, "".join(f"{line.text}\n" for line in others))
        self._append(record)

    def round_lost(self, record: LostRound) -> None:
        """Append the record."""
        self._append(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Do nothing, as checkpoints are folders of their own."""

    def close(self) -> None:
        """Do nothing, as every line was flushed."""

    def _append(self, record: RoundRecord | LostRound) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record.to_json()) + "\n")
                file.flush()
                # Before the checkpoint of the round: there is never one without its line.
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics file's merged rounds as plain values, without those that are damaged or lost.

    Raises:
        UserError: there is no file, or it cannot be read.
    """
    return [dict(line.fields) for line in _read(path).lines if line.kind == "merged"]


def last_share(path: Path) -> float:
    """Return the share of a run's training that is done, by the last readable line of its metrics; 0 without one."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        for text in reversed(file.read().split(b"\n")[:-1]):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                share = float(parse_json(text.decode(), "a line", ValueError)["done"])
                return min(1.0, max(0.0, share))
    return 0.0


def mend(path: Path, done: int) -> str | None:
    """Give a metrics file exactly one line for each of ``done`` merged rounds; return the damage in words.

    Rounds after the checkpoint, and half a line, are no damage, as a killed process leaves them. A damaged file is kept
    beside the mended one.

    Raises:
        UserError: it cannot be read or written.
    """
    found = _read(path) if path.exists() else _Found([], damaged=0)
    kept, missing = _one_a_round(found.lines, done)
    text = "".join(f"{line.text}\n" for line in kept)
    # A new run has none yet.
    if text.encode() == found.content:
        return None
    aside = _put_aside(path) if path.exists() and (missing or found.damaged) else None
    write_text(path, text)
    if not missing and not found.damaged:
        return None
    return _words(path, done, missing, aside)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Content of a file: the lines that could be read, the number of others, and all its bytes."""

    lines: Sequence[_Line]
    damaged: int
    content: bytes = b""


def _read(path: Path) -> _Found:
    """Read all of a file.

    Raises:
        UserError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        return _Found([], damaged=1)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    # What follows the last end of a line is half a line of a killed process.
    whole = content.split(b"\n")[:-1]
    lines = list(_lines(whole))
    return _Found(lines, len(whole) - len(lines), content)


def _lines(texts: Iterable[bytes]) -> Iterator[_Line]:
    for text in texts:
        with contextlib.suppress(ValueError):
            line = text.decode()
            fields = parse_json(line, "a line", ValueError)
            yield _Line(line, fields, *_kind(fields))


def _kind(fields: Any) -> tuple[int, Literal["merged", "unmerged", "lost"]]:
    """Return the round of a line, and the kind of the line.

    Raises:
        ValueError: it is no line of metrics.
    """
    if isinstance(fields, Mapping) and fields.get("merged") is False:
        return lost_from_json(fields).round, "unmerged"
    if isinstance(fields, Mapping) and fields.keys() == {"round", "lost"}:
        number = fields["round"]
        if fields["lost"] is not True or type(number) is not int or number < 1:
            raise ValueError("no line about a lost record")
        return number, "lost"
    return record_from_json(fields).round, "merged"


def _one_a_round(lines: Sequence[_Line], done: int) -> tuple[list[_Line], list[int]]:
    """Return the lines to keep in their order, and the rounds whose record is lost now.

    All rounds that were not merged stay, as each was a try. If a round has two lines neither can be trusted, unless
    they agree.
    """
    told: dict[int, set[str]] = {}
    for line in lines:
        if line.kind == "merged":
            told.setdefault(line.round, set()).add(line.text)
    merged = {line.round: line for line in lines if line.kind == "merged" and len(told[line.round]) == 1}
    known = {line.round for line in lines if line.kind == "lost"}
    one_each = [merged.get(number) or _lost_line(number) for number in range(1, done + 1)]
    unmerged = [line for line in lines if line.kind == "unmerged"]
    # A try at a round comes before the round; sorting keeps the order of equals.
    kept = sorted([*unmerged, *one_each], key=lambda line: (line.round, line.kind != "unmerged"))
    return kept, [line.round for line in one_each if line.kind == "lost" and line.round not in known]


def _lost_line(number: int) -> _Line:
    fields = {"round": number, "lost": True}
    return _Line(json.dumps(fields), fields, number, "lost")


def _put_aside(path: Path) -> Path:
    """Give a damaged file another name and return its new path.

    Raises:
        UserError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}{DAMAGED}{number or ''}") for number in itertools.count())
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        path.rename(aside)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot rename {path}: {error.strerror or error}") from error
    return aside


def _words(path: Path, done: int, missing: Sequence[int], aside: Path | None) -> str:
    what = f"{path} was missing" if aside is None else f"{path} was damaged (kept as {aside.name})"
    if not missing:
        return f"{what}; no record is lost of {counted(done, 'round')}"
    which = f"round {missing[0]}" if len(missing) == 1 else f"{len(missing)} of {counted(done, 'round')}"
    have = "has" if len(missing) == 1 else "have"
    return f"{what}; {which} {have} no record any more, and a line that says so; training is not affected"
