"""Helpers of commands that train many runs: the number of runs at a time, and how to resume after an interruption."""

import contextlib
from collections.abc import Iterator, Sequence

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.console import next_step, stderr
from fedpareto.supernet.common.terminal.words import shell


def check_jobs(jobs: int) -> None:
    """Refuse a number of parallel runs below 1.

    Raises:
        UserError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; it must be at least 1")


@contextlib.contextmanager
def told_to_go_on(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """Tell the user how to resume if the block is interrupted; the interrupt itself is raised again."""
    try:
        yield
    except KeyboardInterrupt:
        stderr.print("the same command goes on where this one stopped")
        next_step(shell([program, *arguments]))
        raise
