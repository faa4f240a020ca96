"""Suggestions of the next command after ``search-subnet``, which can be typed as they are printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.search.query.budgets import budget_options
from fedpareto.search.query.options import SearchOptions
from fedpareto.search.query.subject import SearchTarget
from fedpareto.supernet.common.terminal.words import command

_PROG = "search-subnet"

#: Options, beside the budgets, that the same subnet takes again.
_SAME = (
    *("architecture", "targets", "fitness", "checkpoint", "calibration", "finetune_epochs", "finetune_lr"),
    "exact_statistics",
)


def after_search(options: SearchOptions, subject: SearchTarget, report: Mapping[str, Any]) -> str:
    """Return the command after a search for one subnet, whose ``report`` has been completed."""
    if subject.run is None:
        return command("train-supernet", space=options.space, fitness=options.fitness)
    again = {"run": subject.run, **options.data.options, **_asked(options)}
    images_here = not _is_connected(subject.run)
    if options.output is None:
        return command(_PROG, **again, **_uncalibrated(options, subject), test=images_here, output="subnet")
    if not images_here:
        return _profile(options, subject)
    if options.export is None:
        return command(_PROG, **again, export="onnx", output=f"{options.output}-onnx")
    if options.export == "onnx":
        return command("python", report["export"]["script"], report["export"]["file"], "PICTURE")
    if options.architecture is not None:
        return _profile(options, subject)
    return command(_PROG, **again, report="report.html")


def _uncalibrated(options: SearchOptions, subject: SearchTarget) -> dict[str, object]:
    """Return the option without which no subnet of a private run whose images are with the clients is written."""
    from fedpareto.search.query.private_runs import extractable  # noqa: PLC0415 - imports torch
    from fedpareto.training.runs.folder import read_run_config  # noqa: PLC0415

    config, exact = read_run_config(Path(str(subject.run))), options.exact_statistics
    written = extractable(config, subject.space.norm, options.calibration, exact=exact)
    return {} if written else {"calibration": "none"}


def _profile(options: SearchOptions, subject: SearchTarget) -> str:
    return command("profile-device", run=subject.run, **options.data.options, output="latency.json")


def _asked(options: SearchOptions) -> dict[str, object]:
    """Return the options by which another command finds the same subnet."""
    given = {name: getattr(options, name) for name in _SAME if getattr(options, name) != getattr(SearchOptions(), name)}
    return {**given, **budget_options(options)}


def after_targets(options: SearchOptions, subject: SearchTarget) -> str:
    """Return the command after a search for many targets."""
    if subject.run is None:
        return command("train-supernet", space=options.space, fitness=options.fitness)
    again = {"run": subject.run, **options.data.options, **_asked(options)}
    if options.output is None:
        return command(_PROG, **again, output="subnets")
    if _is_connected(subject.run):
        return _profile(options, subject)
    return command(_PROG, **again, export="onnx", output=f"{options.output}-onnx")


def _is_connected(run: Path) -> bool:
    """Return True if a run's images are with the clients of a real federation."""
    from fedpareto.training.runs.folder import read_run_config  # noqa: PLC0415 - imports torch

    return read_run_config(run).engine == "flower"
