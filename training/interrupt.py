"""Ctrl-C ends a run at the round's edge; a second one ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from supernet.console import stderr


class StopRequest:
    """Whether the user has asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Return whether the run should stop at the next round's edge."""
        return self.asked


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a stop request; the next one ends the program at once."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        request.asked = True
        # Not what was there before: a shell starts background jobs with interrupts ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stderr.print("stopping at the end of this round; interrupt again to stop at once")

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
