"""Shares of a benchmark's time: how much is left, and a cut where it is used up."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Cut(Exception):  # noqa: N818 - nothing went wrong
    """The time of a part is used up."""


class Until:
    """A moment on the monotonic clock that work ends by.

    Args:
        moment: in seconds.
    """

    def __init__(self, moment: float) -> None:
        self._moment = moment

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._moment - time.monotonic()


@contextmanager
def cut_after(seconds: float, error: Callable[[], BaseException] = Cut) -> Iterator[None]:
    """Leave the block by an error once ``seconds`` have passed; the main thread only.

    Python's code is left at its next step: one long operation of the device is waited for.
    """
    if seconds <= 0:
        raise error()

    def ring(signum: int, frame: FrameType | None) -> NoReturn:
        del signum, frame
        raise error()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
