"""Files of levers and results of their runs, for tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fedpareto.search.recipes.ablation import Ablation
from fedpareto.search.recipes.reading import read_ablation
from fedpareto.search.recipes.result import Reached, Result
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.run import config_to_mapping
from helpers.runs.federation import MICRO, micro_config

BUDGETS = (60_000, 120_000)


def micro_run(folder: Path, of: SearchSpace = MICRO) -> dict[str, Any]:
    """Return the settings that all recipes share in a short run on the digits."""
    config = config_to_mapping(micro_config(folder, of))
    run = {name: value for name, value in config.items() if name not in ("output", "seed", "rounds", "method")}
    return {**run, "method": "deepfednas", "compute": "240M"}


def levers_file(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return what a file of two levers holds, with fields changed; None leaves one out."""
    fields: dict[str, Any] = {
        "name": "tiny",
        # Which writes a space and a cache.
        "settings": changes.get("settings") or {"equal": micro_run(folder)},
        "seeds": [0, 1],
        "budgets": [str(budget) for budget in BUDGETS],
        "levers": {"slow": {"client": {"lr": 0.01}}, "smooth": {"client": {"label_smoothing": 0.1}}},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def write_levers(folder: Path, fields: Mapping[str, Any]) -> Path:
    """Write a file of levers."""
    path = folder / "levers.yaml"
    path.write_text(yaml.safe_dump(dict(fields), sort_keys=False))
    return path


def read_levers(folder: Path, **changes: Any) -> Ablation:
    """Write a file of levers and read it."""
    return read_ablation(write_levers(folder, levers_file(folder, **changes)))


def ablation(**changes: Any) -> Ablation:
    """Return an ablation of two levers in two settings that no file stands for."""
    fields: dict[str, Any] = {
        "path": Path("levers.yaml"),
        "name": "tiny",
        "settings": {"equal": {"compute": "1G"}, "unequal": {"compute": "2G"}},
        "levers": {"slow": {"client": {"lr": 0.01}}, "smooth": {"client": {"label_smoothing": 0.1}}},
        "seeds": [0, 1],
        "budgets": [100, 200],
        "together": True,
        "probe": 0.2,
        "keep": 0.5,
        **changes,
    }
    return Ablation(**fields)


def result(setting: str, recipe: str, seed: int, *accuracies: float) -> Result:
    """Return a result with networks of 100, 200, … MACs."""
    networks = [Reached(100 * (place + 1), 90, accuracy) for place, accuracy in enumerate(accuracies)]
    return Result(setting, recipe, seed, {}, 5, 1000, networks, "a machine")
