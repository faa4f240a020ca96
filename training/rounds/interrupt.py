"""Ctrl-C ends a run at the round's edge; a second one, or SIGTERM, abandons the round at the next step."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Protocol

from fedpareto.supernet.common.terminal.console import EXIT_INTERRUPTED, EXIT_TERMINATED, stderr
from fedpareto.supernet.common.terminal.interruption import handled, leave_unheard
from fedpareto.supernet.common.terminal.words import command
from fedpareto.training.engines.protocol import Stopped

#: What has been asked for: nothing, to stop at the round's edge, to stop at once.
_GO_ON, _FINISH, _ABANDON = range(3)


class Interruptible(Protocol):
    """Says which parts of a round may be abandoned; all others are done to their end."""

    def training(self) -> AbstractContextManager[object]:
        """Return a block that is left by ``Stopped`` when asked to stop at once; not entered when asked to stop."""

    def evaluating(self) -> AbstractContextManager[object]:
        """Return a block that is left by ``Stopped`` when asked to stop in any way, or not entered."""


class Uninterrupted:
    """The parts of a round where nobody can ask to stop."""

    def training(self) -> AbstractContextManager[object]:
        """Return a block like any other."""
        return nullcontext()

    def evaluating(self) -> AbstractContextManager[object]:
        """Return a block like any other."""
        return nullcontext()


UNINTERRUPTED = Uninterrupted()


class StopRequest:
    """Whether and how the user has asked the run to stop.

    Signals are counted twice: in the main thread, where they leave a block that may be left, and by whoever keeps
    the time, which also tells the user what will happen.

    Args:
        remaining: returns in words how long the round will take yet.
    """

    def __init__(self, remaining: Callable[[], str]) -> None:
        self._remaining = remaining
        self._asked = self._told = _GO_ON
        #: What may be asked for without leaving the present block.
        self._borne = _ABANDON
        #: Whether a block was left, and with it a round or an evaluation.
        self.abandoned = False
        self.exit_code = EXIT_INTERRUPTED

    def __call__(self) -> bool:
        """Return whether the run should stop at the next round's edge."""
        return self._asked > _GO_ON

    def training(self) -> AbstractContextManager[None]:
        """Return a block that is left by ``Stopped`` when asked to stop at once; not entered when asked to stop."""
        return self._left_when_more_is_asked(_FINISH)

    def evaluating(self) -> AbstractContextManager[None]:
        """Return a block that is left by ``Stopped`` when asked to stop in any way, or not entered."""
        return self._left_when_more_is_asked(_GO_ON)

    @property
    def at_once(self) -> bool:
        """Whether the process has to end as soon as it can."""
        return self._asked == _ABANDON

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal in the main thread.

        Raises:
            Stopped: the present block is to be left.
        """
        del frame
        before, self._asked = self._asked, _next(self._asked, number)
        if self._asked == _ABANDON and number == signal.SIGTERM:
            self.exit_code = EXIT_TERMINATED
        if self._asked > before and self._asked > self._borne:
            # Once: what follows the block is done to its end.
            self._borne = _ABANDON
            self.abandoned = True
            raise Stopped

    def tell(self, number: int) -> bool:
        """Tell the user what a signal leads to; return whether the process has to end now."""
        before, self._told = self._told, _next(self._told, number)
        if self._told == before:
            return False
        if self._told == _ABANDON:
            stderr.print("stopping at once")
            return True
        stderr.print(f"{self._remaining()}; interrupt again to stop at once")
        return False

    @contextlib.contextmanager
    def _left_when_more_is_asked(self, borne: int) -> Iterator[None]:
        if self():
            raise Stopped
        self._borne = borne
        try:
            # Between the question above and here.
            if self._asked > borne:
                raise Stopped
            yield
        finally:
            self._borne = _ABANDON


def _next(asked: int, number: int) -> int:
    """Return what has been asked for after a further signal."""
    return _ABANDON if number == signal.SIGTERM else min(asked + 1, _ABANDON)


@contextlib.contextmanager
def stop_on_interrupt(folder: Path, request: StopRequest, *, ends_process: bool = True) -> Iterator[None]:
    """Turn signals in the block into a request to stop the run in ``folder``.

    Where the process ends with the block, signals after one are unheard, and it is ended if it takes too long. Where it
    goes on, as a notebook does, signals are handled as before once the block is left.
    """
    going_on = command("train-supernet", resume=folder)
    last_words = f"ended in mid-step; the last checkpoint is whole; next: {going_on}"

    def final(number: int) -> bool:
        return request.tell(number) and ends_process

    with handled(request.hear, final, last_words):
        yield
    if request() and ends_process:
        leave_unheard()
