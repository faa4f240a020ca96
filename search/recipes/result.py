"""Result of a run of an ablation, as a JSON file. No torch."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.recipes.ablation import Planned
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields
from fedpareto.supernet.common.storage.sealed_file import read_sealed, write_sealed
from fedpareto.training.config.rules.unused_settings import settings_of
from fedpareto.training.config.run import RunConfig

#: Settings that are paths, which do not change a run's result.
_PLACES = ("output", "data.root", "data.download")


@dataclasses.dataclass(frozen=True)
class Reached:
    """Accuracy of the fittest network within a budget.

    Attributes:
        budget: most MACs allowed.
        macs: its MACs.
        accuracy: on the validation images, from 0 to 1.
    """

    budget: int
    macs: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of a run.

    Attributes:
        setting: name of the setting it trained in.
        recipe: name of its recipe in files.
        seed: seed of the run.
        given: its settings that are not defaults, by full name.
        rounds: rounds of training.
        compute: MACs of its clients' forward passes.
        networks: networks by ascending budget, one for each.
        machine: the machine it ran on.
    """

    setting: str
    recipe: str
    seed: int
    given: Mapping[str, Any]
    rounds: int
    compute: int
    networks: Sequence[Reached]
    machine: str

    @property
    def label(self) -> str:
        """Name of the run for people, without its seed."""
        return f"{self.recipe} in setting {self.setting}"

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy by budget."""
        return {network.budget: network.accuracy for network in self.networks}

    @property
    def mean(self) -> float:
        """Mean accuracy over the budgets, each counting alike."""
        return statistics.fmean(self.accuracies.values())


def given_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of a run that are not defaults, by full name, without paths of files and folders."""
    defaults = settings_of(type(config)())
    return {
        name: value
        for name, value in settings_of(config).items()
        if value != defaults[name] and name not in _PLACES and not name.startswith("tracking.")
    }


def write_result(path: Path, result: Result) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_sealed(path, dataclasses.asdict(result))


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    try:
        fields = read_sealed(path)
        return Result(
            setting=fields.text("setting"),
            recipe=fields.text("recipe"),
            seed=fields.whole("seed"),
            given=dict(fields.within("given").values),
            rounds=fields.whole("rounds"),
            compute=fields.whole("compute"),
            networks=[_reached(network) for network in fields.each("networks")],
            machine=fields.text("machine"),
        )
    except UserError as error:
        raise UserError(f"{path} is damaged; remove it, and the run is measured again ({error})") from error


def _reached(fields: Fields) -> Reached:
    return Reached(fields.whole("budget", 1), fields.whole("macs", 1), fields.number("accuracy", 0, 1))


def result_of(path: Path, run: Planned, budgets: Sequence[int]) -> Result | None:
    """Return the result of a run from its file; None if that measured other budgets, so that it is to be made anew.

    Raises:
        UserError: the file cannot be read, or is of a run with other settings.
    """
    result = read_result(path)
    found = (result.setting, result.recipe, result.seed)
    if found != (run.setting, run.recipe.label, run.trial.seed):
        raise UserError(f"{path} is of {result.label} with seed {result.seed}; remove it, and it is measured again")
    changed = _changed(result.given, given_settings(run.trial.config))
    if changed is not None:
        raise UserError(
            f"{path} is of a run with other settings than the file of levers has now ({changed}); restore them, remove "
            "it and the run's folder to train anew, or name another --output"
        )
    return result if list(result.accuracies) == list(budgets) else None


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return a setting that differs, with both values, or None."""
    for name in sorted({*was, *now}):
        before, after = (each.get(name, "its default") for each in (was, now))
        if before != after:
            return f"{name} is {after}, it was {before}"
    return None
