"""Provenance of a subnet: what it was extracted with, and the provenance of the run it is from."""

from collections.abc import Sequence
from typing import Any

from fedpareto.search.extraction.opened_run import OpenedRun
from fedpareto.supernet.common.provenance import FORMAT, VERSION, origin
from fedpareto.supernet.common.storage.digests import digest_of
from fedpareto.training.runs.checkpoint import SUPERNET
from fedpareto.training.runs.provenance import read_provenance


def subnet_provenance(run: OpenedRun, command: Sequence[str] | None) -> dict[str, Any]:
    """Return the content of a subnet's ``provenance.json``.

    Args:
        run: the run it was extracted from.
        command: words of the command line; None from Python.

    Raises:
        UserError: the run's own provenance is damaged.
        OSError: the supernet cannot be read.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        **origin(command),
        "checkpoint": {"name": run.checkpoint_path.name, "supernet": digest_of(run.checkpoint_path / SUPERNET)},
        "run": read_provenance(run.folder),
    }
