"""Provenance of a run: its data, space and cache by their digests, and every session that trained it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.provenance import FORMAT, PROVENANCE, VERSION, origin
from fedpareto.supernet.common.storage.digests import has_digests
from fedpareto.supernet.common.storage.files import read_text, write_recorded, write_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.training.config.inputs import portable
from fedpareto.training.config.rules.changes import RESUME_MAY_CHANGE
from fedpareto.training.config.run import by_full_name


def write_session(
    folder: Path,
    digests: Mapping[str, str],
    config: Mapping[str, Any],
    round_number: int,
    command: Sequence[str] | None,
) -> None:
    """Write, or add to, ``provenance.json`` of a run: a session that begins. One like the last adds nothing.

    Args:
        folder: of the run.
        digests: SHA-256 of its ``data``, ``space`` and ``cache``.
        config: its configuration as plain values.
        round_number: rounds done before the session.
        command: words of its command line; None from Python.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    path = folder / PROVENANCE
    session = {"configuration": configuration_digest(config), **origin(command)}
    before = [dict(each.values) for each in _read(path).each("sessions")] if exists(path) else []
    if before and {**before[-1], "after_round": 0} == {**session, "after_round": 0}:
        return
    found = {
        "format": FORMAT,
        "version": VERSION,
        "data_set": by_full_name(config)["data.name"],
        "digests": dict(digests),
        "sessions": [*before, {"after_round": round_number, **session}],
    }
    text = json.dumps(found, indent=1) + "\n"
    if has_digests(folder):
        write_recorded(path, text)
    else:
        # A run of an earlier version stays one without digests.
        write_text(path, text)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Return the provenance of a run; None for one of an earlier version.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / PROVENANCE
    return dict(_read(path).values) if exists(path) else None


def entries_digest(path: Path) -> str:
    """Return the SHA-256 of the entries of a cache file: its first line says when it was written.

    Raises:
        UserError: it cannot be read.
    """
    return hashlib.sha256(read_text(path).partition("\n")[2].encode()).hexdigest()


def configuration_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all settings that may decide the bytes of a run: places and reports are not among them."""
    settings = {
        name: value for name, value in by_full_name(portable(config)).items() if not name.startswith(RESUME_MAY_CHANGE)
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Fields:
    fields = fields_of(parse_json(read_text(path), str(path)), str(path))
    fields.choice("format", [FORMAT])
    if fields.whole("version") != VERSION:
        raise UserError(f"{path} has version {fields.value('version')}; this program reads {VERSION}")
    return fields
