"""What an engine does: turn tasks into updates or failures, and calibration tasks into statistics."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.messages import CalibrationTask, Failure, Statistics, Task, Update


class EngineError(UserError):
    """A federation that cannot go on; the run keeps its last round."""


def never() -> bool:
    """Return that nobody has asked to stop."""
    return False


class Stopped(KeyboardInterrupt):
    """The user has asked to stop while clients were waited for, trained or evaluated."""


class Engine(Protocol):
    """Runs tasks on clients, wherever those are.

    Tasks are taken from the iterable only as they can be started, and answers are yielded as they come, so
    that memory does not grow with the number of clients.
    """

    def available(self) -> Sequence[int]:
        """Return the clients a round can draw from, in ascending order; may wait for them.

        Raises:
            EngineError: there are too few.
            Stopped: the user does not want to wait any more.
        """

    def examples(self, client: int) -> int:
        """Return how many training images a client has that is available."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in any order; its tensors hold until the next one is asked for."""


class CalibratingEngine(Engine, Protocol):
    """An engine whose clients also calibrate subnets."""

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield one answer for every task, in any order."""
