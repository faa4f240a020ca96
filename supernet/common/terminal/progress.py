"""Listeners that long work reports its progress and its remarks to."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from fedpareto.supernet.common.terminal.console import progress_bar, stderr
from fedpareto.supernet.common.terminal.display import Display


def _ignore(*args: object) -> None:
    del args


@dataclasses.dataclass(frozen=True)
class ProgressListener:
    """Receiver of the progress and the remarks of long work.

    Attributes:
        report: called with a description of the work, the steps done and the steps in all.
        remark: called with a sentence that the user should know.
    """

    report: Callable[[str, int, int], None] = _ignore
    remark: Callable[[str], None] = _ignore


SILENT = ProgressListener()


@contextlib.contextmanager
def progress_display(what: str = "working") -> Iterator[ProgressListener]:
    """Yield a listener that shows work on a display of its own, which ends with the block.

    Where there is no terminal, ``what`` is done is said even while no report comes.
    """
    progress = progress_bar()
    try:
        yield shown_on(progress, what)
    finally:
        progress.stop()


@contextlib.contextmanager
def progress_or_silence(what: str, shown: bool) -> Iterator[ProgressListener]:
    """Yield a listener that shows work where it is to be ``shown``, and one that says nothing where it is not."""
    if not shown:
        yield SILENT
        return
    with progress_display(what) as listener:
        yield listener


def shown_on(progress: Display, what: str = "working") -> ProgressListener:
    """Return a listener that shows work as one bar of a display, started when there is any, and remarks above it."""
    task = progress.add_task(what, total=None)
    progress.follow()

    def report(what: str, done: int, total: int) -> None:
        progress.start()
        progress.update(task, description=what, completed=done, total=total)

    return ProgressListener(report, stderr.print)
