"""Parallel answers to many targets: a pool of processes that end with the command. No torch."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from fedpareto.search.query.budgets import LIMITING, Budgets
from fedpareto.supernet.common.errors import UserError

#: Targets that take a search of their own, of which so many are worth processes: forked ones start in milliseconds,
#: those that start anew import everything again.
_WORTH_FORKING, _WORTH_STARTING = 3, 10

#: Budgets that the frontier answers at once, each alone.
_ON_THE_FRONTIER = frozenset({"flops_budget", "min_fitness"})

#: Seconds between a worker's looks at whether the command is still there.
_LOOK = 0.5

Answer = TypeVar("Answer")


def workers_for(targets: Mapping[str, Budgets], cores: int) -> int:
    """Return the number of processes that answer the targets fastest; 1 means the command's own alone."""
    searched = sum(not _at_once(budgets) for budgets in targets.values())
    return min(cores, searched) if searched >= (_WORTH_FORKING if _can_fork() else _WORTH_STARTING) else 1


def answered_by(
    answer: Callable[[Budgets], Answer], targets: Mapping[str, Budgets], workers: int
) -> Generator[tuple[str, Answer], None, None]:
    """Yield every target's name and answer in order, computed by ``workers`` processes.

    ``answer`` and its results are sent between processes; its exceptions are raised here. The processes end when the
    iteration ends, for whatever reason.

    Raises:
        UserError: a process was ended from outside.
    """
    context = multiprocessing.get_context("fork" if _can_fork() else "spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_follow, initargs=(os.getpid(),))
    try:
        futures: dict[str, Future[Answer]] = {}
        for name, budgets in targets.items():
            futures[name] = pool.submit(answer, budgets)
        for name, future in futures.items():
            yield name, future.result()
    except BrokenProcessPool as error:
        raise UserError("a process that answered targets was ended from outside; is there enough memory?") from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            with contextlib.suppress(ValueError):
                process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _at_once(budgets: Budgets) -> bool:
    """Return True if the frontier has the answer."""
    given = {name for name in LIMITING if getattr(budgets, name) is not None}
    return len(given) == 1 and given <= _ON_THE_FRONTIER


def _can_fork() -> bool:
    """Return True if a forked process can compute, which it cannot once torch has started threads."""
    return sys.platform == "linux" and "torch" not in sys.modules


def _follow(command: int) -> None:
    """Make a worker end with the command, and leave Ctrl-C, which reaches both, to the command."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(command,), name="command", daemon=True).start()


def _end_with(command: int) -> None:
    while os.getppid() == command:
        time.sleep(_LOOK)
    os._exit(1)
