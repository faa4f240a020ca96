"""Ledger of a private run's releases: a write-ahead account, ``releases.jsonl`` in the run's folder.

Before the noise of a round is added, and so before anybody can see the result, a line is appended and forced to the
disk: the round, the weights of its planned clients, and a keyed digest of the sums that are about to be hidden. A run
that is killed then, and repeats the round with the same answers, releases the same bytes again, which is nothing new.
With other answers it is a further release, also if the first one was never looked at. The exposure of a run is that of
all lines, those of rounds after its newest checkpoint among them.

Every line ends with an HMAC-SHA256 over itself and the one before it, keyed by the run's secret, so that lines are not
altered, dropped or swapped without notice. Lines that were cut off at the end are missed if a checkpoint knows them.
"""

import dataclasses
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.privacy.accountant import exposure_after
from fedpareto.training.privacy.key import derive

RELEASES = "releases.jsonl"

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Release:
    """Release of a round: its sums with noise, which clients' weights are in.

    Attributes:
        round: number of the round.
        digest: keyed digest of its sums without noise, as hex digits.
        weights: weights of the planned clients.
    """

    round: int
    digest: str
    weights: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        """Return the release as plain JSON values."""
        return {**vars(self), "weights": {str(client): weight for client, weight in self.weights.items()}}


def release_of(key: bytes, number: int, digests: Mapping[str, bytes], weights: Mapping[int, float]) -> Release:
    """Release of round ``number``, from the keyed digests of its sums by tensor."""
    parts = [part for name, digest in digests.items() for part in (name, digest)]
    return Release(number, derive(key, "release", number, *parts).hex(), dict(weights))


class Ledger:
    """Ledger of a run: what it has released so far. The caller holds the run's lock.

    Args:
        path: its file.
        key: secret of the run.
        run: identity of the run, as in the file.
        clients: number of clients of the run.
        chained: HMAC of its last line.
        releases: releases in it.

    Attributes:
        exposure: exposure of every client after all releases; empty before the first one.
    """

    def __init__(
        self, path: Path, key: bytes, run: str, clients: int, chained: bytes, releases: Sequence[Release] = ()
    ) -> None:
        self._path, self._clients, self._chained = path, clients, chained
        self._releases: list[Release] = []
        self.key, self.run = key, run
        self.exposure: tuple[float, ...] = ()
        for release in releases:
            self._count(release)

    def knows(self, release: Release) -> bool:
        """Return True if a release with the same sums and weights has been made, so that this one shows nothing new."""
        return release in self._releases

    def may_repeat(self, number: int, weights: Mapping[int, float]) -> bool:
        """Return True if a round was released with these weights before, so that it may be about to be repeated."""
        return any(each.round == number and each.weights == weights for each in self._releases)

    def exposure_with(self, weights: Mapping[int, float]) -> tuple[float, ...]:
        """Exposure of every client after one more release, with these weights."""
        return exposure_after(self.exposure, weights, self._clients)

    def write(self, release: Release) -> None:
        """Append a release and force it to the disk, unless it is known: it may leave once this has returned.

        Raises:
            UserError: it cannot be written; nothing of it is left then.
        """
        if self.knows(release):
            return
        line, chained = _line(self.key, self._chained, release.to_json())
        _append(self._path, line)
        self._chained = chained
        self._count(release)

    def _count(self, release: Release) -> None:
        self.exposure = self.exposure_with(release.weights)
        self._releases.append(release)

    def check_against(self, exposure: Sequence[float]) -> None:
        """Refuse a ledger that has less than a checkpoint knows of; each release exposes some client by 1.

        Args:
            exposure: exposure of every client in the checkpoint; empty before the first round.

        Raises:
            UserError: lines are missing.
        """
        own, known = (each or (0.0,) * self._clients for each in (self.exposure, exposure))
        if any(mine < theirs for mine, theirs in zip(own, known, strict=True)):
            raise UserError(
                f"{self._path} has {counted(len(self._releases), 'release')}, fewer than the run's checkpoint knows "
                f"of; without them its privacy cannot be accounted for: {_remedy(self._path)}"
            )


def new_ledger(path: Path, key: bytes, run: str, clients: int) -> Ledger:
    """Begin the ledger of a new run, which is called ``run`` as no other one is.

    Raises:
        UserError: it cannot be written.
    """
    line, chained = _line(key, b"", {"version": _VERSION, "run": run, "clients": clients})
    _append(path, line, begin=True)
    return Ledger(path, key, run, clients, chained)


def read_ledger(path: Path, key: bytes) -> Ledger:
    """Read the ledger of a run.

    Raises:
        UserError: it is missing, or a line is not as the run with this key wrote it.
    """
    try:
        with path.open("rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        raise UserError(
            f"{path} is missing or unreadable ({error.strerror or error}); without it the run's privacy cannot be "
            f"accounted for: {_remedy(path)}"
        ) from error
    chained, bodies = b"", []
    try:
        if lines.pop():
            raise ValueError(f"line {len(lines) + 1} is cut off")
        for number, line in enumerate(lines, 1):
            chained, body = _verified(key, chained, line, number)
            bodies.append(body)
        header = fields_of(bodies[0] if bodies else {}, str(path), ValueError)
        if header.whole("version", 1) != _VERSION:
            raise ValueError(f"it has version {header.whole('version')}; this program reads {_VERSION}")
        releases = [_release(body, str(path)) for body in bodies[1:]]
        return Ledger(path, key, header.text("run"), header.whole("clients", 1), chained, releases)
    except ValueError as error:
        reason = str(error).replace(f"{path}: ", "")
        raise UserError(
            f"{path} is damaged ({reason}); without it the run's privacy cannot be accounted for: {_remedy(path)}"
        ) from error


def _remedy(path: Path) -> str:
    return f"restore it from a copy, or start a new run with another --output and --init {path.parent}"


def _line(key: bytes, chained: bytes, body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Line of a body, and its HMAC, which the next one goes on from."""
    text = json.dumps(body)
    mac = derive(key, "ledger", chained, text)
    return f'{text[:-1]}, {_MAC}{mac.hex()}"}}\n'.encode(), mac


#: Beginning of a line's HMAC, which ends the line.
_MAC = '"mac": "'


def _verified(key: bytes, chained: bytes, line: bytes, number: int) -> tuple[bytes, Any]:
    """HMAC of a line, and the line's values.

    Raises:
        ValueError: it is not as it was written.
    """
    text, _, end = line.decode("utf-8", "replace").rpartition(f", {_MAC}")
    mac = derive(key, "ledger", chained, text + "}")
    if not hmac.compare_digest(f'{mac.hex()}"}}'.encode(), end.encode()):
        raise ValueError(f"line {number} is not as it was written")
    return mac, parse_json(text + "}", "a line", ValueError)


def _release(body: Any, source: str) -> Release:
    fields = fields_of(body, source, ValueError)
    weights = fields.within("weights")
    return Release(
        fields.whole("round", 1),
        fields.text("digest"),
        {int(client): weights.number(client, 0) for client in weights.values},
    )


def _append(path: Path, line: bytes, *, begin: bool = False) -> None:
    """Append a line and force it, and the file's name, to the disk; a line that does not fit leaves nothing.

    Raises:
        UserError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if begin else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_whole(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; a round that is not accounted for is not released"
        ) from error


def _write_whole(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]
