"""Interruption of a run: Ctrl-C stops it at the end of the round; a second one, or SIGTERM, abandons the round."""

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
    """Parts of a round that may be abandoned when the user asks to stop; all others are done to their end."""

    def training(self) -> AbstractContextManager[object]:
        """Return a block that is left by ``Stopped`` on a request to stop at once, and not entered after a request."""

    def evaluating(self) -> AbstractContextManager[object]:
        """Return a block that is left by ``Stopped`` on any request to stop, and not entered after one."""


class Uninterrupted:
    """Parts of a round in a run that nobody can ask to stop."""

    def training(self) -> AbstractContextManager[object]:
        """Return a block that nothing interrupts."""
        return nullcontext()

    def evaluating(self) -> AbstractContextManager[object]:
        """Return a block that nothing interrupts."""
        return nullcontext()


UNINTERRUPTED = Uninterrupted()


class StopRequest:
    """Request of the user to stop the run: none, at the end of the round, or at once.

    Signals are counted twice: in the main thread, where they leave a block that may be left, and by the thread that
    keeps the time, which also tells the user what will happen.

    Args:
        remaining: function that returns words about the rest of the round and its time.
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
        """Return True if the run should stop at the end of the round."""
        return self._asked > _GO_ON

    def training(self) -> AbstractContextManager[None]:
        """Return a block that is left by ``Stopped`` on a request to stop at once, and not entered after a request."""
        return self._left_when_more_is_asked(_FINISH)

    def evaluating(self) -> AbstractContextManager[None]:
        """Return a block that is left by ``Stopped`` on any request to stop, and not entered after one."""
        return self._left_when_more_is_asked(_GO_ON)

    @property
    def at_once(self) -> bool:
        """True if the process has to end as soon as it can."""
        return self._asked == _ABANDON

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal in the main thread.

        Raises:
            Stopped: the present block has to be left.
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
        """Tell the user about the effect of a signal; return True if the process has to end now."""
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
    """Return the request after a further signal."""
    return _ABANDON if number == signal.SIGTERM else min(asked + 1, _ABANDON)


@contextlib.contextmanager
def stop_on_interrupt(folder: Path, request: StopRequest, *, ends_process: bool = True) -> Iterator[None]:
    """Turn signals in the block into a request to stop the run in ``folder``.

    If the process ends with the block, signals after the block are ignored, and the process is ended if that takes too
    long. If it goes on, as a notebook does, signals are handled as before once the block is left.
    """
    going_on = command("train-supernet", resume=folder)
    last_words = f"ended in mid-step; the last checkpoint is whole; next: {going_on}"

    def final(number: int) -> bool:
        return request.tell(number) and ends_process

    with handled(request.hear, final, last_words):
        yield
    if request() and ends_process:
        leave_unheard()
