"""Studies small enough for tests, and what came of their trials."""

from pathlib import Path
from typing import Any

import yaml

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult
from fedpareto.search.comparison.studies.study import Study, read_study
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.run import config_to_mapping
from helpers.runs.federation import MICRO, micro_config

BUDGETS = (60_000, 120_000)


def tiny_study(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the mapping of a study of two methods on the digits that takes seconds."""
    config = config_to_mapping(micro_config(folder))
    run = {name: value for name, value in config.items() if name not in ("output", "seed", "rounds", "method")}
    study: dict[str, Any] = {
        "name": "tiny",
        "methods": {"deepfednas": {}, "cotrain": {"client": {"lr": 0.02}}},
        "seeds": [0, 1],
        "budgets": [str(budget) for budget in BUDGETS],
        "run": {**run, "compute": "240M"},
    }
    return {**study, **changes}


def write_study(folder: Path, study: dict[str, Any]) -> Path:
    """Write a study into ``folder``; return its file."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def read_tiny(folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> Study:
    """Return the tiny study with changes of its fields and of what its methods share."""
    study = tiny_study(folder, **changes)
    study["run"] |= run or {}
    return read_study(write_study(folder, study))


def measured(budget: int, accuracy: float, architecture: Architecture, space: SearchSpace = MICRO) -> MeasuredNetwork:
    """Return a network as it is kept after a trial."""
    entry: CacheEntry = make_entry(space, architecture)
    return MeasuredNetwork(budget, entry.macs, entry.params, accuracy, accuracy, 0.0, architecture.to_json())


def outcome_of(label: str, seed: int, networks: list[MeasuredNetwork], compute: int = 240_000_000) -> TrialResult:
    """Return the outcome of a trial."""
    return TrialResult(label, seed, 7, compute, 2000, 3000, 4.0, networks, "a machine")
