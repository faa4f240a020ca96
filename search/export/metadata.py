"""Metadata of an exported file: everything needed to run it, and the run and checkpoint it comes from."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fedpareto.fitness.costs import FilePrecision
from fedpareto.search.subnet import SubnetInfo


def metadata_of(
    info: SubnetInfo, precision: FilePrecision = "fp32", temperature: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return the metadata of an exported subnet, each value JSON text; ``null`` if its report lacks it.

    The ``temperature``, if it was fitted, is a ``value``, and whether it is ``applied``: the logits are
    divided by it. Where they are not, softmax of logits / value are calibrated confidences.

    Run and checkpoint are names, not places: a file that is handed on tells nothing about the machine it was made on.
    """
    report = info.report
    values: dict[str, Any] = {
        "architecture": info.architecture.to_json(),
        "preparation": info.preparation.to_json(),
        "resolution": info.architecture.resolution,
        "space": info.space.name,
        "classes": info.classes,
        "normalisation": dataclasses.asdict(info.normalisation),
        "precision": precision,
        "fedpareto_version": _version(),
        "run": _name(report.get("run")),
        "checkpoint": _name(report.get("checkpoint")),
        **({} if temperature is None else {"temperature": dict(temperature)}),
        **{name: report.get(name) for name in ("macs", "params", "fitness", "calibration")},
    }
    return {name: json.dumps(value) for name, value in values.items()}


def _name(path: object) -> str | None:
    return None if path is None else Path(str(path)).absolute().name


def _version() -> str | None:
    try:
        return metadata.version("fedpareto")
    except metadata.PackageNotFoundError:
        return None
