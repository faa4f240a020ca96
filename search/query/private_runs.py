"""Subnets of private runs: exact statistics of clients' images only if asked for, and what (ε, δ) covers then."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.search.export.settings import ExportSettings
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.space import Norm
from fedpareto.training.config.run import RunConfig
from fedpareto.training.privacy.coverage import begun_apart, network_coverage

#: Methods of calibration that measure clients' images.
_CLIENTS_IMAGES = ("pooled", "federated")


def _accept() -> str:
    return f"accept what (ε, δ) does not cover with {option('exact-statistics')}"


def asks_clients(config: RunConfig, *, exact: bool) -> bool:
    """True if the clients of a real federation are asked for anything when a subnet is extracted."""
    return config.engine == "flower" and (exact or not config.privacy.withheld)


def extractable(config: RunConfig, norm: Norm, calibration: str, *, exact: bool) -> bool:
    """False if a subnet's BatchNorm would need statistics that only clients have, and that are withheld."""
    withheld = config.privacy.withheld and not exact
    return not (withheld and config.engine == "flower" and norm == "batch" and calibration != "none")


def check_private(
    folder: Path, config: RunConfig, norm: Norm, calibration: str, finetune_epochs: int, *, exact: bool
) -> None:
    """Refuse what a private run's (ε, δ) does not cover, unless exact statistics are asked for.

    Args:
        folder: folder of the run.
        config: its configuration.
        norm: norm of its space.
        calibration: method of calibration that is asked for.
        finetune_epochs: local epochs of fine-tuning.
        exact: whether exact statistics of clients' images are asked for.

    Raises:
        UserError: fine-tuning or a calibration on clients' images is not asked for as such, or the run is not private.
    """
    privacy = config.privacy
    if exact:
        if not privacy.clip:
            raise UserError(f"{option('exact-statistics')} is for private runs, and {folder} is none; leave it out")
        return
    if finetune_epochs and privacy.clip:
        raise UserError(
            f"{folder} was trained with privacy.clip {privacy.clip:g}; fine-tuning is neither clipped nor "
            f"noised and would spend that privacy: leave out {option('finetune-epochs')}, or {_accept()}"
        )
    if not privacy.withheld or norm != "batch":
        return
    if calibration in _CLIENTS_IMAGES:
        raise UserError(
            f"{option('calibration', calibration)} takes exact statistics of clients' images, and {folder} withholds "
            f"those; leave it out, or {_accept()}"
        )
    if not extractable(config, norm, calibration, exact=exact):
        raise UserError(
            f"a subnet of {folder} would be calibrated on clients' images, whose exact statistics the run withholds; "
            f"search without {option('output')}, leave it uncalibrated with {option('calibration', 'none')}, or "
            f"{_accept()}"
        )


def export_of(config: RunConfig, settings: ExportSettings) -> ExportSettings:
    """Return the settings of an export with no temperature for a private run, which tells accuracy alone.

    Raises:
        UserError: logits of a private run are to be divided by one.
    """
    if not config.privacy.noise:
        return settings
    if settings.temperature == "logits":
        raise UserError(
            f"{option('temperature', 'logits')} is fitted on validation images, and the run is private, which tells "
            "their accuracy alone; leave it out"
        )
    return dataclasses.replace(settings, temperature="none")


def coverage_report(config: RunConfig, report: Mapping[str, Any], *, exact: bool) -> dict[str, Any]:
    """Return the report's fields about the coverage of a subnet by its run's (ε, δ); none without noise.

    Args:
        config: configuration of the run.
        report: report of the subnet, complete but for these fields.
        exact: whether exact statistics of clients' images were asked for.
    """
    if not config.privacy.noise:
        return {}
    reasons = {
        "its images are normalised by clients' pixels": config.privacy.statistics == "exact",
        "fine-tuned without noise": "finetune" in report,
        "calibrated on clients' images": report["calibration"]["method"] in _CLIENTS_IMAGES,
        "measured on clients' images": asks_clients(config, exact=exact) and "validation_accuracy" in report,
    }
    uncovered = [reason for reason, holds in reasons.items() if holds]
    words = network_coverage(uncovered) + begun_apart(config.init)
    return {"privacy": {"covered": not uncovered, "words": words}}
