"""Pace of the present round: an estimate of its remaining time, measured on it and on the round before."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedpareto.training.trackers.records import LostRound, RoundRecord


class Pace:
    """Tracker that estimates the end of the round that trains.

    Args:
        done: number of rounds that are done.
        clock: function that returns seconds of a monotonic clock.
    """

    def __init__(self, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done, self._started = done, clock()
        self._previous: float | None = None
        self._clients = (0, 0)

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Take note of the number of clients that have answered."""
        del round_number
        self._clients = (done, clients)

    def round_done(self, record: RoundRecord) -> None:
        """Take note of a round's time and of the start of the next one."""
        self._done, self._previous = record.round, record.seconds
        self._started, self._clients = self._clock(), (0, 0)

    def round_lost(self, record: LostRound) -> None:
        """Do nothing, as the run ends."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Do nothing, as the next round trains meanwhile."""

    def close(self) -> None:
        """Do nothing."""

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds until the round is merged; None before anything was measured."""
        passed, (done, clients) = self._clock() - self._started, self._clients
        if self._previous is not None and passed < self._previous:
            return self._previous - passed
        return passed * (clients - done) / done if done else None

    def words(self) -> str:
        """Return the words about stopping at the end of the round: its number and the time until then."""
        left = self.seconds_left
        how_long = "how long that takes is not known, as no client has answered yet"
        if left is not None:
            how_long = f"about {_words(left)}"
        return f"finishing round {self._done + 1} without an evaluation: {how_long}"


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min"
