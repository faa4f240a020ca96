"""The two stages of an ablation: cheap runs of every recipe, then the survivors at full compute; resumable."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedpareto.search.comparison.results.fairness import unequal
from fedpareto.search.recipes.ablation import BASE, Ablation, Planned, Recipe, StageName, planned
from fedpareto.search.recipes.judging import Verdict, verdicts
from fedpareto.search.recipes.result import Result, result_of, write_result
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.progress import progress_display


@dataclasses.dataclass(frozen=True)
class Standing:
    """State of a stage: the verdicts so far.

    Attributes:
        stage: the stage.
        recipes: recipes that it tries.
        verdicts: verdicts on the recipes with results.
        refused: reasons why results are left out, a line each.
    """

    stage: StageName
    recipes: Sequence[Recipe]
    verdicts: Sequence[Verdict]
    refused: Sequence[str]

    @property
    def survivors(self) -> list[str] | None:
        """Names of the recipes that are worth the whole compute; None while one cannot be judged."""
        found = {verdict.recipe: verdict.survives for verdict in self.verdicts}
        judged = {recipe: found.get(recipe) for recipe in self.recipes if recipe.name != BASE}
        return None if None in judged.values() else [recipe.name for recipe, survives in judged.items() if survives]


def conduct(ablation: Ablation, folder: Path, jobs: int) -> None:
    """Train and measure whatever has no result yet: the probes and, once all can be judged, the survivors.

    Args:
        ablation: the ablation.
        folder: folder of runs and results.
        jobs: runs at once, each a process of its own.

    Raises:
        UserError: a run fails, or a file is damaged or of other settings.
        KeyboardInterrupt: all processes have ended; the same call goes on.
    """
    _run(ablation, folder, "probe", ablation.recipes(), jobs)
    survivors = standing(ablation, folder, "probe", ablation.recipes()).survivors
    if survivors is not None:
        _run(ablation, folder, "full", ablation.finalists(survivors), jobs)


def standings(ablation: Ablation, folder: Path) -> list[Standing]:
    """Return the states of the stages that have begun or could begin.

    Raises:
        UserError: a result is damaged or of other settings.
    """
    probe = standing(ablation, folder, "probe", ablation.recipes())
    if not probe.survivors:
        return [probe]
    return [probe, standing(ablation, folder, "full", ablation.finalists(probe.survivors))]


def standing(ablation: Ablation, folder: Path, stage: StageName, recipes: Sequence[Recipe]) -> Standing:
    """Return the state of a stage; runs whose compute is not that of the others are left out.

    Raises:
        UserError: a result is damaged or of other settings.
    """
    fair, refused = list[Result](), list[str]()
    for run in planned(ablation, stage, recipes):
        result = _result(ablation, folder, stage, run)
        reason = None if result is None else unequal(result, run.limit)
        if reason is not None:
            refused.append(reason)
        elif result is not None:
            fair.append(result)
    return Standing(stage, recipes, verdicts(ablation, recipes, fair), refused)


def runs_folder(folder: Path, stage: StageName) -> Path:
    """Return the folder of a stage's runs and of the files that they were started with."""
    return folder / stage / "runs"


def _run(ablation: Ablation, folder: Path, stage: StageName, recipes: Sequence[Recipe], jobs: int) -> None:
    runs = planned(ablation, stage, recipes)
    waiting = {run.trial: run for run in runs if _result(ablation, folder, stage, run) is None}
    if not waiting:
        return
    # Both import torch.
    from fedpareto.search.comparison.trials import Trials  # noqa: PLC0415
    from fedpareto.search.recipes.measure import measure  # noqa: PLC0415

    with progress_display("probes" if stage == "probe" else "survivors") as listener:
        for trial, run in Trials(runs_folder(folder, stage), jobs, listener).run(list(waiting)):
            result = measure(waiting[trial], run, ablation.budgets)
            write_result(_result_path(folder, stage, waiting[trial]), result)


def _result(ablation: Ablation, folder: Path, stage: StageName, run: Planned) -> Result | None:
    """Return the result of a run; None where there is none with these budgets yet."""
    path = _result_path(folder, stage, run)
    return result_of(path, run, ablation.budgets) if exists(path) else None


def _result_path(folder: Path, stage: StageName, run: Planned) -> Path:
    return folder / stage / "results" / f"{run.trial.name}.json"
