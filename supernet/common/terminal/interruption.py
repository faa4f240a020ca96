"""Handling of Ctrl-C and SIGTERM, which end a command within ten seconds whatever it is doing.

A signal's handler runs in the main thread between two of Python's own steps, so it may have to wait for one long call
into a library. A thread of its own therefore keeps the time: it learns of a signal at once, from the pipe that Python
writes signal numbers to, and ends the process when the main thread has not tidied up in time.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

#: Seconds that a command has for tidying up; with the start of an exit it stays below ten.
GRACE = 8.0

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The command was asked to end by SIGTERM."""


def exit_code(number: int) -> int:
    """Return the exit code of a command that signal ``number`` has ended, as shells give it: 130 or 143."""
    return 128 + number


@contextlib.contextmanager
def ended_by_signals(prog: str) -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` in the block at the first SIGINT, ``Terminated`` at the first SIGTERM.

    Later signals are left unheard, and the process is ended if the block is not left within ``GRACE`` seconds.
    """
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        del frame
        if not ended:
            ended = True
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    with handled(end, lambda number: True, f"{prog}: ended before it could tidy up; no file is half-written"):
        try:
            yield
        finally:
            if ended:
                leave_unheard()


def leave_unheard() -> None:
    """Ignore signals from here on, so that a second Ctrl-C shows no traceback of an interpreter that is ending."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def handled(
    handler: Callable[[int, FrameType | None], None], final: Callable[[int], bool], last_words: str
) -> Iterator[None]:
    """Handle SIGINT and SIGTERM in the block, also where a shell has started the command with them ignored.

    Args:
        handler: runs in the main thread as soon as that can; may raise.
        final: called at once for every signal, in another thread; true if the process has to end now. It then
            has ``GRACE`` seconds to leave the block.
        last_words: line on standard error of a process that does not.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can handle signals; whoever calls from another one handles them itself.
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_keep_time, args=(reading, final, last_words), name="signals", daemon=True).start()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            # What the block has set itself holds on.
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)
        signal.set_wakeup_fd(wakeup)
        # The thread ends when nothing can be written any more.
        os.close(writing)


def _keep_time(reading: int, final: Callable[[int], bool], last_words: str) -> None:
    try:
        while numbers := os.read(reading, 1):
            if numbers[0] in SIGNALS and final(numbers[0]) and not _closed_in_time(reading):
                # Not through any buffer: the main thread may hold its lock.
                os.write(2, f"{last_words}\n".encode())
                os._exit(exit_code(numbers[0]))
    finally:
        os.close(reading)


def _closed_in_time(reading: int) -> bool:
    end = time.monotonic() + GRACE
    while (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0] and not os.read(reading, 64):
            return True
    return False
