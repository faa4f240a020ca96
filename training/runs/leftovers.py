"""Opening of a run's folder to write it: temporary files that killed processes have left are removed first."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.storage.files import sweep
from fedpareto.training.runs.checkpoint import tidy_checkpoints
from fedpareto.training.runs.folder import check_run, locked


@contextlib.contextmanager
def opened_to_write(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing run, whose folder is then free of temporary files.

    Raises:
        RunError: there is no run, or another process is training it.
    """
    check_run(folder)
    with locked(folder):
        sweep(folder)
        tidy_checkpoints(folder)
        yield
