"""The protocol all trackers share; the round loop names no tracker."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from fedpareto.training.config.registries import TRACKERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.trackers.records import LostRound, RoundRecord


class Tracker(Protocol):
    """Is told of a run's events in order."""

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Another client of a round has answered: ``done`` of ``clients``."""

    def round_done(self, record: RoundRecord) -> None:
        """A round was merged, and evaluated if it was due."""

    def round_lost(self, record: LostRound) -> None:
        """A round was not merged, as too few clients had answered; the run ends."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """A checkpoint worth keeping was written: ``best`` and/or ``final``."""

    def close(self) -> None:
        """The run ended, or was interrupted."""


@dataclasses.dataclass(frozen=True)
class TrackerContext:
    """What a tracker of somebody else is made with.

    Attributes:
        folder: of the run; what is written there is not touched by a resumed run.
        config: of the run.
        round: rounds that are done: a run that is resumed goes on after that one, and repeats later ones.
    """

    folder: Path
    config: RunConfig
    round: int


T = TypeVar("T", bound=Callable[[TrackerContext], Tracker])


def register_tracker(name: str) -> Callable[[T], T]:
    """Register a tracker: decorates a class, or another factory, that ``tracking.also`` may name in this process.

    Raises:
        UserError: another one has the name.

    >>> import fedpareto as fp
    >>> from fedpareto.training.trackers.callbacks import FunctionTracker
    >>> @fp.register_tracker("losses")
    ... def losses(context):
    ...     return FunctionTracker(lambda record: print(record.round, record.train_loss))
    """

    def registered(factory: T) -> T:
        TRACKERS.register(name, factory)
        return factory

    return registered


class Trackers:
    """Several trackers as one."""

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
        """Tell every tracker."""
        for tracker in self._trackers:
            tracker.close()
