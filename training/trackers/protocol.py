"""Protocol of trackers, so that the round loop need not know any of them, and their registration by name."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, cast

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extensions import blamed
from fedpareto.training.config.registries import TRACKERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.trackers.records import LostRound, RoundRecord


class Tracker(Protocol):
    """Tracker, which is told of a run's events in order."""

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Take note that another client of a round has answered: ``done`` of ``clients`` so far."""

    def round_done(self, record: RoundRecord) -> None:
        """Take note of a round that was merged, and evaluated if that was due."""

    def round_lost(self, record: LostRound) -> None:
        """Take note of a round that was not merged, as too few clients had answered; the run ends."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Take note of a checkpoint worth keeping, known as ``best`` and/or ``final``."""

    def close(self) -> None:
        """Release everything: the run ended, or was interrupted."""


@dataclasses.dataclass(frozen=True)
class TrackerContext:
    """Context that a registered tracker is made with.

    Attributes:
        folder: folder of the run; a resumed run does not touch a tracker's files in it.
        config: configuration of the run.
        round: number of rounds that are done; a resumed run goes on after that one, and repeats later ones.
    """

    folder: Path
    config: RunConfig
    round: int


T = TypeVar("T", bound=Callable[[TrackerContext], Tracker])


def register_tracker(name: str) -> Callable[[T], T]:
    """Register a tracker: decorates a class, or another factory, that ``tracking.also`` may name in this process.

    Raises:
        UserError: another one has the name, it is no name, or what is decorated cannot be called as it would be.

    >>> import fedpareto as fp
    >>> from fedpareto.training.trackers.callbacks import FunctionTracker
    >>> @fp.register_tracker("losses")
    ... def losses(context):
    ...     return FunctionTracker(lambda record: print(record.round, record.train_loss))
    """
    return TRACKERS.registering(name)


def checked_tracker(given: object, what: str) -> Tracker:
    """A tracker, once it is seen to be one: everything a run tells trackers of, it can be told.

    Raises:
        UserError: it lacks a method; ``what`` names it.
    """
    for name in ("client_done", "round_done", "round_lost", "checkpoint", "close"):
        if not callable(getattr(given, name, None)):
            raise UserError(f"{what} of type {type(given).__name__} has no method {name}, which a tracker has")
    return cast(Tracker, given)


def new_tracker(name: str, context: TrackerContext) -> Tracker:
    """Make the registered tracker of a name; whatever it raises names it.

    Raises:
        UserError: there is none of the name, it cannot be loaded or made, or what is made is none.
    """
    what, factory = f"tracker {name!r}", TRACKERS.get(name)
    with blamed(what):
        made = factory(context)
    return BlamedTracker(what, checked_tracker(made, what))


class BlamedTracker:
    """Tracker of somebody else, whose failures name it.

    Args:
        what: words that name it in errors.
        tracker: the tracker itself.
    """

    def __init__(self, what: str, tracker: Tracker) -> None:
        self._what, self._tracker = what, tracker

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Tell the tracker."""
        with blamed(self._what):
            self._tracker.client_done(round_number, done, clients)

    def round_done(self, record: RoundRecord) -> None:
        """Tell the tracker."""
        with blamed(self._what):
            self._tracker.round_done(record)

    def round_lost(self, record: LostRound) -> None:
        """Tell the tracker."""
        with blamed(self._what):
            self._tracker.round_lost(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Tell the tracker."""
        with blamed(self._what):
            self._tracker.checkpoint(folder, aliases)

    def close(self) -> None:
        """Tell the tracker."""
        with blamed(self._what):
            self._tracker.close()


class Trackers:
    """Tracker that passes every event on to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Tell every tracker."""
        for tracker in self._trackers:
            tracker.client_done(round_number, done, clients)

    def round_done(self, record: RoundRecord) -> None:
        """Tell every tracker."""
        for tracker in self._trackers:
            tracker.round_done(record)

    def round_lost(self, record: LostRound) -> None:
        """Tell every tracker."""
        for tracker in self._trackers:
            tracker.round_lost(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Tell every tracker."""
        for tracker in self._trackers:
            tracker.checkpoint(folder, aliases)

    def close(self) -> None:
        """Tell every tracker, the others too where one fails."""
        with contextlib.ExitStack() as all_of_them:
            for tracker in reversed(self._trackers):
                all_of_them.callback(tracker.close)
