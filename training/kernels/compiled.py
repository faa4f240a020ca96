"""Compilation by numba: functions are compiled once and kept on disk for the next start."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.cache_folder import kept_folder


def _folder() -> tuple[Path | None, str | None]:
    """Return the folder of compiled functions, or the reason why there is none.

    Numba checks only the file that a function is in, and not the files that it takes instructions from. So every state
    of the sources has a folder of its own.
    """
    sources = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(source.read_bytes())
    try:
        folder = kept_folder("kernels") / sources.hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, UserError) as error:
        return None, str(error)
    return folder, None


FOLDER, NOT_KEPT = _folder()

_FUNCTIONS: list[Any] = []


def keep_nothing() -> None:
    """Stop keeping functions that are compiled from now on, as numba raises an error where it cannot write."""
    for function in _FUNCTIONS:
        function._cache = NullCache()


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function that numba compiles at its first call, or reads from disk; it runs without Python's lock."""
    if FOLDER is None:
        return numba.njit(nogil=True)(function)
    # Numba decides here where it keeps a function; what else uses numba in this process is to find its own setting.
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(FOLDER)
    try:
        made = numba.njit(nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
    _FUNCTIONS.append(made)
    return made
