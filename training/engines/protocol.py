"""What an engine does: turn tasks into updates or failures, and calibration tasks into statistics."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from training.messages import CalibrationTask, Failure, Statistics, Task, Update


class Engine(Protocol):
    """Runs tasks on clients, wherever those are.

    Tasks are taken from the iterable only as they can be started, and answers are yielded as they come, so
    that memory does not grow with the number of clients.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in any order; its tensors hold until the next one is asked for."""


class CalibratingEngine(Engine, Protocol):
    """An engine whose clients also calibrate subnets."""

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield one answer for every task, in any order."""
