"""Callbacks: a user's functions that are called with the record of every round."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.trackers.protocol import Tracker, checked_tracker
from fedpareto.training.trackers.records import LostRound, RoundRecord


class FunctionTracker:
    """Tracker that calls a function with the record of every round.

    Args:
        function: function that is called with the record.
    """

    def __init__(self, function: Callable[[RoundRecord], object]) -> None:
        self._function = function

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Ignore a client."""

    def round_done(self, record: RoundRecord) -> None:
        """Call the function."""
        self._function(record)

    def round_lost(self, record: LostRound) -> None:
        """Ignore a round that was not merged."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Ignore a checkpoint."""

    def close(self) -> None:
        """Do nothing."""


def trackers_of(callbacks: Sequence[object]) -> list[Tracker]:
    """Make trackers of callbacks, which are functions, or trackers already.

    Raises:
        UserError: one is neither.
    """
    return [_tracker_of(callback) for callback in callbacks]


def _tracker_of(callback: object) -> Tracker:
    if hasattr(callback, "round_done"):
        return checked_tracker(callback, "a callback")
    if callable(callback):
        return FunctionTracker(callback)
    raise UserError(f"a callback is of type {type(callback).__name__}; give functions of a round's record, or trackers")
