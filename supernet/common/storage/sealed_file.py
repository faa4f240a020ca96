"""Files of one JSON object with a digest of itself (a seal), which is checked when the file is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, unsealed
from fedpareto.supernet.common.storage.files import read_text, write_text


def write_sealed(path: Path, body: Mapping[str, Any]) -> None:
    """Write an object and its seal, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(sealed(body), indent=2) + "\n")


def read_sealed(path: Path) -> Fields:
    """Read the fields of the object in a file, without its seal.

    Raises:
        UserError: the file cannot be read, is no object of JSON, or is not what was sealed.
    """
    whole = fields_of(parse_json(read_text(path), str(path)), str(path))
    return Fields(unsealed(whole.values, str(path)), str(path))
