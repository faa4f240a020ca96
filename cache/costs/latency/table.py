"""Latency tables: a device's milliseconds for every block of a space, as a JSON file.

The latency of a network is predicted as the sum over its blocks.

The file is ``{"format": "fedpareto-latency-table", "version": 1, "blocks": {BLOCK: MILLISECONDS, …}}``. Blocks are
named by their layers (``fedpareto.cache.costs.latency.block_names``). A table written by hand holds no more.
``profile-device`` adds ``measured`` (the conditions), ``spread`` (each block's interval and runs) and, after a
validation on whole networks, ``validation`` and perhaps ``correction``. It also adds ``digest``, so that no figure
changes unnoticed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, shown, unsealed
from fedpareto.supernet.common.storage.files import read_text, write_text

FORMAT = "fedpareto-latency-table"
VERSION = 1

#: Fields of a table's summary in reports.
_MEASURED = ("machine", "device", "runtime", "threads", "batch")
_VALIDATED = ("networks", "mean_absolute_percentage_error", "rank_correlation")


class LatencyTableError(UserError):
    """A latency table that cannot be read, does not fit its use, lacks a block, or has a time below 0."""


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Conditions of a measurement: the space, the machine and the way it was measured.

    Attributes:
        space: name of the search space.
        machine: processor, its cores, and Python.
        device: ``cpu`` or the GPU's name.
        runtime: ``torch`` or ``onnxruntime``.
        threads: CPU threads.
        batch: images a run.
        clock: ``wall``, or ``processor``: the processor time of the thread that computes.
        versions: versions of the packages that decide how fast it is.
        interval: half the width aimed at of the confidence interval of a median, relative to it.
        confidence: level of the intervals.
        created: when the measurement began, ISO 8601.
    """

    space: str
    machine: str
    device: str
    runtime: str
    threads: int
    batch: int
    clock: str
    versions: dict[str, str]
    interval: float
    confidence: float
    created: str


@dataclasses.dataclass(frozen=True)
class Correction:
    """Linear correction of a network's sum over blocks: ``factor`` times the sum, plus ``offset_ms`` milliseconds."""

    factor: float
    offset_ms: float


@dataclasses.dataclass(frozen=True)
class Validation:
    """Validation of a table: its prediction errors on whole networks that were measured.

    Attributes:
        networks: number of networks.
        mean_absolute_percentage_error: of the table as it is used, in percent; with a correction, of networks that
            it was not fitted on.
        rank_correlation: Spearman's, between predicted and measured times; no correction changes it. None where all
            predictions are equal.
        uncorrected_percentage_error: the same error without a correction.
        corrected_percentage_error: the same error with one, whether or not the table has kept it.
        predicted_ms: each network's time by the sum over its blocks.
        measured_ms: each network's time by the stopwatch.
    """

    networks: int
    mean_absolute_percentage_error: float
    rank_correlation: float | None
    uncorrected_percentage_error: float
    corrected_percentage_error: float
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of blocks by name, as the file has them.

    Attributes:
        blocks: milliseconds by name; checked where a space needs them (``latency_cost``).
        measured: conditions of the measurement; None in a table written by hand.
        spread: lower and upper end of a block's interval in milliseconds, and its runs.
        references: milliseconds of the reference network in each group of blocks; ``blocks`` are as if it had always
            taken the median of them.
        correction: applied to every sum, where there is one.
        validation: result of the validation on whole networks, if there was one.
    """

    blocks: dict[str, Any]
    measured: Conditions | None = None
    spread: dict[str, tuple[float, float, int]] = dataclasses.field(default_factory=dict)
    references: tuple[float, ...] = ()
    correction: Correction | None = None
    validation: Validation | None = None


def read_table(path: Path) -> LatencyTable:
    """Read a latency table.

    Raises:
        LatencyTableError: the file is no table, or a field beside ``blocks`` is malformed.
        UserError: the file cannot be read.
    """
    content = parse_json(read_text(path), str(path), LatencyTableError)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LatencyTableError(f'{path} is not a latency table: it lacks "format": "{FORMAT}"')
    if content.get("version") != VERSION:
        raise LatencyTableError(f"{path} has version {shown(content.get('version'))}; this program reads {VERSION}")
    fields = Fields(unsealed(content, str(path), LatencyTableError), str(path), "", LatencyTableError)
    return LatencyTable(
        # What is in them is checked where a space needs it.
        dict(fields.within("blocks").values),
        _conditions(fields.within("measured")) if fields.has("measured") else None,
        _spread(fields.within("spread")) if fields.has("spread") else {},
        fields.numbers("references", 0) if fields.has("references") else (),
        _correction(fields.within("correction")) if fields.has("correction") else None,
        _validation(fields.within("validation")) if fields.has("validation") else None,
    )


def write_latency_table(path: Path, table: LatencyTable) -> None:
    """Write a latency table, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    fields = {name: value for name, value in dataclasses.asdict(table).items() if value}
    body = sealed({"format": FORMAT, "version": VERSION, "blocks": {}, **fields})
    write_text(path, json.dumps(body, indent=1) + "\n")


def table_summary(path: Path) -> dict[str, Any]:
    """Return a table's summary in reports: where and how it was measured, and how well it predicts."""
    table = read_table(path)
    summary: dict[str, Any] = {"file": str(path)}
    if table.measured is not None:
        summary |= {name: getattr(table.measured, name) for name in _MEASURED}
    if table.validation is not None:
        summary["validation"] = {name: getattr(table.validation, name) for name in _VALIDATED}
    return summary


def check_conditions(
    table: LatencyTable,
    path: Path,
    *,
    remedy: str = "use another table, or measure one with profile-device",
    **wanted: object,
) -> None:
    """Refuse a table that was measured in another way than it is to be used; one written by hand fits any use.

    Args:
        table: the table.
        path: its file.
        remedy: advice to the user about a difference.
        wanted: values of fields of ``Conditions``.

    Raises:
        LatencyTableError: a field differs; the message names it with both values.
    """
    if table.measured is None:
        return
    for name, value in wanted.items():
        found = getattr(table.measured, name)
        if found != value:
            raise LatencyTableError(
                f"{name}: {path} was measured with {_shown(found)}, but {_shown(value)} is wanted here; {remedy}"
            )


def _conditions(fields: Fields) -> Conditions:
    versions = fields.within("versions")
    return Conditions(
        space=fields.text("space"),
        machine=fields.text("machine"),
        device=fields.text("device"),
        runtime=fields.text("runtime"),
        threads=fields.whole("threads", 1),
        batch=fields.whole("batch", 1),
        clock=fields.text("clock"),
        versions={name: versions.text(name) for name in versions.values},
        interval=fields.number("interval", 0, 1),
        confidence=fields.number("confidence", 0, 1),
        created=fields.text("created"),
    )


def _spread(fields: Fields) -> dict[str, tuple[float, float, int]]:
    found = {}
    for name in fields.values:
        ends = fields.numbers(name, 0)
        if len(ends) != 3 or ends[2] != int(ends[2]):
            raise fields.wrong(name, "the two ends of an interval and a number of runs")
        found[name] = (ends[0], ends[1], int(ends[2]))
    return found


def _correction(fields: Fields) -> Correction:
    return Correction(fields.number("factor"), fields.number("offset_ms"))


def _validation(fields: Fields) -> Validation:
    return Validation(
        networks=fields.whole("networks", 1),
        mean_absolute_percentage_error=fields.number("mean_absolute_percentage_error", 0),
        rank_correlation=fields.number("rank_correlation", -1, 1) if fields.has("rank_correlation") else None,
        uncorrected_percentage_error=fields.number("uncorrected_percentage_error", 0),
        corrected_percentage_error=fields.number("corrected_percentage_error", 0),
        predicted_ms=fields.numbers("predicted_ms"),
        measured_ms=fields.numbers("measured_ms", 0),
    )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
