"""The user's cache folder, which keeps results of one command for the next ones."""

import os
import re
from pathlib import Path

import platformdirs

from fedpareto.supernet.common.errors import UserError

#: Names the folder things are kept in, instead of the platform's.
VARIABLE = "FEDPARETO_CACHE_DIR"


class NowhereKeptError(UserError):
    """No cache folder can be found: the user has no home and names none."""


def kept_file(kind: str, name: str, digest: str, suffix: str) -> Path:
    """Return the path of a cached file of a ``kind``; ``digest`` tells files of one name apart.

    Raises:
        NowhereKeptError: see ``kept_folder``.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:60]
    return kept_folder(kind) / f"{readable}-{digest}{suffix}"


def kept_folder(kind: str) -> Path:
    """Return the folder of cached files of a ``kind``.

    Raises:
        NowhereKeptError: the user has no home, and no other folder is named.
    """
    named = os.environ.get(VARIABLE)
    return (_platform_folder() if not named else Path(named)) / kind


def _platform_folder() -> Path:
    try:
        folder = platformdirs.user_cache_path("fedpareto")
    except RuntimeError:
        folder = Path("~")
    # Older versions of platformdirs leave the tilde of a user without a home.
    if folder.parts[:1] == ("~",):
        raise NowhereKeptError(f"this user has no home folder to keep things in; name a folder with {VARIABLE}")
    return folder
