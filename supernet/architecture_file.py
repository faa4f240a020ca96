"""The file ``architecture.json``: one architecture with a digest that tells if it was altered."""

import json
from pathlib import Path

from fedpareto.supernet.architecture import Architecture, architecture_from_text
from fedpareto.supernet.common.storage.files import read_text, write_text

ARCHITECTURE = "architecture.json"


def architecture_text(architecture: Architecture) -> str:
    """Return the text of an architecture's file, with its digest."""
    return json.dumps(architecture.to_json(), indent=2) + "\n"


def save_architecture(folder: Path, architecture: Architecture) -> None:
    """Write ``architecture.json`` into ``folder``.

    Raises:
        UserError: the folder cannot be written.
    """
    write_text(folder / ARCHITECTURE, architecture_text(architecture))


def read_architecture(path: str | Path) -> Architecture:
    """Read the architecture in a JSON file.

    Raises:
        UserError: it cannot be read, was altered since this program wrote it, or holds no architecture.
    """
    return architecture_from_text(read_text(Path(path)), str(path))
