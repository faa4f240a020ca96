"""Reservation of the place of a run that is being made, so that no two sessions make one run at once."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.storage.path_checks import exists, reaching
from fedpareto.training.runs.folder import RunError, trained_already


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Hold the place of a run until it is made, and has a lock of its own.

    What is locked is a file beside the folder, which is gone with the block, as are folders that were made for it. One
    that a killed process has left is taken over.

    Raises:
        RunError: another session holds it.
        UserError: nothing can be written there.
    """
    folder = folder.absolute()
    path = folder.with_name(f".{folder.name}.new")
    missing = [parent for parent in path.parents if not exists(parent, "write")]
    with reaching(folder, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
        for parent in missing:
            # Those in which something was written stay.
            with contextlib.suppress(OSError):
                parent.rmdir()


def _taken(path: Path, folder: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise RunError(trained_already(folder)) from error
        except OSError:
            os.close(handle)
            raise
        # Whoever held it before may have removed it between.
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)
