"""What commands of many runs share: how many train at once, and how an interrupted one goes on."""

import contextlib
from collections.abc import Iterator, Sequence

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.console import next_step, stderr
from fedpareto.supernet.common.terminal.words import shell


def check_jobs(jobs: int) -> None:
    """Refuse to train nothing at once.

    Raises:
        UserError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; it must be at least 1")


@contextlib.contextmanager
def told_to_go_on(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """Say how to go on if the user interrupts what is inside; the interrupt itself goes on its way."""
    try:
        yield
    except KeyboardInterrupt:
        stderr.print("the same command goes on where this one stopped")
        next_step(shell([program, *arguments]))
        raise
