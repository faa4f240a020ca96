"""An ablation: levers, each a change to the training recipe, the settings to train in, and the runs to compare."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fedpareto.search.comparison.studies.fields import merged, quiet_config
from fedpareto.search.comparison.studies.study import Trial
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.training.config.rules.unused_settings import read_only
from fedpareto.training.config.run import RunConfig

#: Names of recipes that are no single lever: with none, with all, and with those that survived the probe alone.
BASE, TOGETHER, SURVIVORS = "base", "together", "survivors"

#: Name, in tables, of the mean over all settings.
ALL = "all"

StageName = Literal["probe", "full"]

#: In this order.
STAGES: tuple[StageName, ...] = get_args(StageName)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The base with the changes of some levers.

    Attributes:
        name: its name in tables: base, the name of its one lever, together, or survivors.
        levers: levers whose changes it has, in the order of the file.
    """

    name: str
    levers: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of its files; with several levers it has a digest of their names, so combinations do not collide."""
        if len(self.levers) < 2:
            return self.name
        return f"{TOGETHER}-{hashlib.sha256(' '.join(sorted(self.levers)).encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class Ablation:
    """An ablation, read from its file.

    Attributes:
        path: the file it was read from.
        name: name of the ablation.
        settings: by name, what its runs share: the base recipe, images, clients and compute.
        levers: by name, the settings of the recipe that each changes.
        seeds: seeds of the runs of each recipe in each setting.
        budgets: MACs at which accuracy is compared, ascending.
        together: true if recipes with several levers are tried as well.
        probe: share of the compute of the first, cheap runs that choose the survivors, between 0 and 1.
        keep: percentage points of accuracy that a recipe must gain to survive the probe.
    """

    path: Path
    name: str
    settings: Mapping[str, Mapping[str, Any]]
    levers: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    budgets: Sequence[int]
    together: bool
    probe: float
    keep: float

    def config(self, setting: str, recipe: Recipe) -> RunConfig:
        """Return the configuration of a recipe's runs in a setting, at the whole compute.

        Raises:
            UserError: settings do not go together, or there are none such.
        """
        fields = self.settings[setting]
        for lever in recipe.levers:
            fields = merged(fields, self.levers[lever])
        return quiet_config({**fields, "seed": 0}, f"{self.path}: {place(recipe)} in setting {setting}")

    def compute(self, setting: str, stage: StageName) -> int:
        """Return the client MACs of each run of a stage."""
        whole = parse_quantity(str(self.settings[setting]["compute"]))
        return whole if stage == "full" else max(1, round(self.probe * whole))

    def recipes(self) -> list[Recipe]:
        """Return the recipes of the probe: the base, every lever alone and all together."""
        alone = [Recipe(name, (name,)) for name in self.levers]
        several = [Recipe(TOGETHER, tuple(self.levers))] if self.together and len(alone) > 1 else []
        return [Recipe(BASE, ()), *alone, *several]

    def finalists(self, survivors: Collection[str]) -> list[Recipe]:
        """Return the recipes of the full compute: the base, what survived the probe, and its levers together.

        Args:
            survivors: names of recipes that survived; where there are none, nothing is left to compare the base with.
        """
        if not survivors:
            return []
        found = [recipe for recipe in self.recipes() if recipe.name == BASE or recipe.name in survivors]
        names = tuple(recipe.name for recipe in found if len(recipe.levers) == 1)
        if self.together and len(names) > 1 and all(recipe.levers != names for recipe in found):
            found.append(Recipe(TOGETHER if names == tuple(self.levers) else SURVIVORS, names))
        return found


def place(recipe: Recipe) -> str:
    """Return the place of a recipe's settings in the file, for errors."""
    if recipe.name == BASE:
        return "the base"
    if len(recipe.levers) > 1:
        return f"levers {', '.join(recipe.levers)} together"
    return f"levers.{recipe.name}"


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of an ablation.

    Attributes:
        setting: name of the setting it trains in.
        recipe: recipe it trains by.
        trial: the run: its seed, its configuration and the name of its files.
    """

    setting: str
    recipe: Recipe
    trial: Trial

    @property
    def limit(self) -> int:
        """Client MACs that it may compute."""
        return parse_quantity(str(self.trial.config.compute))


def planned(ablation: Ablation, stage: StageName, recipes: Sequence[Recipe]) -> list[Planned]:
    """Return the runs of a stage, seed by seed, so that what is interrupted can be compared as far as it came."""
    configs = {
        (setting, recipe): _at_stage(ablation, ablation.config(setting, recipe), setting, stage)
        for setting in ablation.settings
        for recipe in recipes
    }
    return [
        # A dot is in no name of a setting or a lever.
        Planned(setting, recipe, Trial(f"{setting}.{recipe.label}", seed, _seeded(config, seed)))
        for seed in ablation.seeds
        for (setting, recipe), config in configs.items()
    ]


def _at_stage(ablation: Ablation, config: RunConfig, setting: str, stage: StageName) -> RunConfig:
    if stage == "full":
        return config
    return dataclasses.replace(config, compute=str(ablation.compute(setting, stage)))


def _seeded(config: RunConfig, seed: int) -> RunConfig:
    return read_only(dataclasses.replace(config, seed=seed))
