"""The folder for what was computed or measured once and is kept for the user's next commands."""

import os
import re
from pathlib import Path

import platformdirs

#: Names the folder things are kept in, instead of the platform's.
VARIABLE = "FEDPARETO_CACHE_DIR"


def kept_file(kind: str, name: str, digest: str, suffix: str) -> Path:
    """Return where a thing of a ``kind`` is kept; ``digest`` tells things of one name apart."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:60]
    return kept_folder(kind) / f"{readable}-{digest}{suffix}"


def kept_folder(kind: str) -> Path:
    """Return the folder in which things of a ``kind`` are kept."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("fedpareto")) / kind
