"""Judgement of recipes: paired differences from the base, seed by seed, and the rule for survivors."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from fedpareto.search.comparison.results.summary import MeanStd
from fedpareto.search.recipes.ablation import BASE, Ablation, Recipe
from fedpareto.search.recipes.result import Result


@dataclasses.dataclass(frozen=True)
class Figures:
    """Results of a recipe in one setting.

    Attributes:
        seeds: number of seeds that have finished.
        accuracies: accuracies by budget, over seeds.
        mean: mean accuracy over all budgets, over seeds.
        apart: by budget, accuracies less the base's with the same seed, over the seeds that both have finished; None
            where there are none, and for the base itself.
        gain: the same for the mean over all budgets.
    """

    seeds: int
    accuracies: Mapping[int, MeanStd]
    mean: MeanStd
    apart: Mapping[int, MeanStd] | None
    gain: MeanStd | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict on a recipe in a stage.

    Attributes:
        recipe: the recipe.
        settings: its results by setting; without settings where nothing has finished.
        gain: mean over settings of its gains with one seed, over the seeds; None of the base, and while a run is
            missing.
        survives: true if the gains satisfy the rule; None likewise.
    """

    recipe: Recipe
    settings: Mapping[str, Figures]
    gain: MeanStd | None
    survives: bool | None


def survives(gains: Mapping[str, Sequence[float]], keep: float) -> bool:
    """Return True if a recipe is worth the whole compute: it gains ``keep`` on average and loses more nowhere.

    Args:
        gains: by setting, the accuracy less the base's for every seed, as shares; equally many in each.
        keep: percentage points of accuracy.
    """
    points = [100 * gain for of_setting in gains.values() for gain in of_setting]
    nowhere_worse = all(100 * statistics.fmean(of_setting) >= -keep for of_setting in gains.values())
    return statistics.fmean(points) >= keep and nowhere_worse


def verdicts(ablation: Ablation, recipes: Sequence[Recipe], results: Sequence[Result]) -> list[Verdict]:
    """Return a verdict on every recipe with a result, in the order of the recipes."""
    found = {(result.setting, result.recipe, result.seed): result for result in results}
    judged = [_verdict(ablation, recipe, found) for recipe in recipes]
    return [verdict for verdict in judged if verdict.settings]


_Found = Mapping[tuple[str, str, int], Result]


def _verdict(ablation: Ablation, recipe: Recipe, found: _Found) -> Verdict:
    own = {setting: _of(ablation, setting, recipe.label, found) for setting in ablation.settings}
    figures = {setting: _figures(own[setting], _of(ablation, setting, BASE, found), recipe) for setting in own}
    settings = {setting: each for setting, each in figures.items() if each is not None}
    gains = {setting: _gains(own[setting], _of(ablation, setting, BASE, found)) for setting in own}
    if recipe.name == BASE or any(len(each) < len(ablation.seeds) for each in gains.values()):
        return Verdict(recipe, settings, None, None)
    by_seed = [statistics.fmean(gains[setting][seed] for setting in gains) for seed in ablation.seeds]
    of_settings = {setting: list(each.values()) for setting, each in gains.items()}
    return Verdict(recipe, settings, MeanStd.of(by_seed), survives(of_settings, ablation.keep))


def _of(ablation: Ablation, setting: str, label: str, found: _Found) -> dict[int, Result]:
    """Return the results of a recipe in a setting by seed."""
    return {seed: found[setting, label, seed] for seed in ablation.seeds if (setting, label, seed) in found}


def _gains(own: Mapping[int, Result], base: Mapping[int, Result]) -> dict[int, float]:
    """Return the gains in mean accuracy over the base, by seed, for the seeds that both have."""
    return {seed: result.mean - base[seed].mean for seed, result in own.items() if seed in base}


def _figures(own: Mapping[int, Result], base: Mapping[int, Result], recipe: Recipe) -> Figures | None:
    if not own:
        return None
    budgets = list(next(iter(own.values())).accuracies)
    paired = [seed for seed in own if seed in base and recipe.name != BASE]
    accuracies = {budget: MeanStd.of([result.accuracies[budget] for result in own.values()]) for budget in budgets}
    mean = MeanStd.of([result.mean for result in own.values()])
    if not paired:
        return Figures(len(own), accuracies, mean, None, None)
    apart = {
        budget: MeanStd.of([own[seed].accuracies[budget] - base[seed].accuracies[budget] for seed in paired])
        for budget in budgets
    }
    return Figures(len(own), accuracies, mean, apart, MeanStd.of(list(_gains(own, base).values())))
