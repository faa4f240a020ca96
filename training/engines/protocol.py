"""The one thing an engine does: turn tasks into updates or failures."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from training.messages import Failure, Task, Update


class Engine(Protocol):
    """Runs tasks on clients, wherever those are.

    Tasks are taken from the iterable only as they can be started, and answers are yielded as they come, so
    that memory does not grow with the number of clients.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in any order; its tensors hold until the next one is asked for."""
