"""The command ``compare-recipes``, which compares changes to the training recipe with a base recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedpareto.search.comparison.going_on import check_jobs, told_to_go_on
from fedpareto.search.comparison.studies.fields import check_budgets
from fedpareto.search.recipes.ablation import STAGES, Ablation, StageName
from fedpareto.search.recipes.outcome import PAGE, TABLE, report, training_command
from fedpareto.search.recipes.reading import read_ablation
from fedpareto.search.recipes.stages import conduct, standings
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.storage.files import check_output, check_writable
from fedpareto.supernet.common.terminal.console import next_step, run_command, stderr
from fedpareto.supernet.common.terminal.words import counted

PROG = "compare-recipes"


@dataclasses.dataclass
class RecipeOptions:
    """Options of ``compare-recipes``.

    Attributes:
        config: YAML file of levers: name, settings, seeds, budgets, levers.
        output: folder of runs and results; runs/NAME when left out. What is finished there is not run again.
        data_root: folder of the images, in place of the settings' own.
        jobs: runs at once, each a process of its own.
    """

    config: str
    output: str | None = None
    data_root: str | None = None
    jobs: int = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 2 after a one-line error, or 130 when it was interrupted."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(
        PROG,
        "Compare training recipes: each change alone and all together, cheaply first, survivors at the full compute.",
        RecipeOptions,
    )
    options = parser.parse(arguments)
    check_jobs(options.jobs)
    ablation = read_ablation(Path(options.config), options.data_root)
    folder = Path(options.output or f"runs/{ablation.name}")
    check_writable(folder / "probe")
    for name in (TABLE, PAGE):
        check_output(folder / name, overwrite=True)
    _check_budgets(ablation)
    _describe(ablation, folder)
    try:
        with told_to_go_on(PROG, arguments):
            conduct(ablation, folder, options.jobs)
    finally:
        found = standings(ablation, folder)
        report(ablation, folder, found)
    left_out = sum(len(standing.refused) for standing in found)
    if left_out:
        raise UserError(
            f"{counted(left_out, 'run')} left out, as said above, so that not every recipe can be judged; raise the "
            "compute or the probe's share until a step of each client is a small part of it"
        )
    next_step(training_command(ablation, folder, found, options.data_root))


def _check_budgets(ablation: Ablation) -> None:
    spaces = [ablation.config(setting, recipe).space for setting in ablation.settings for recipe in ablation.recipes()]
    for space in dict.fromkeys(spaces):
        check_budgets(space, ablation.budgets)


def _describe(ablation: Ablation, folder: Path) -> None:
    runs = len(ablation.settings) * len(ablation.seeds) * len(ablation.recipes())
    probe, whole = (_compute(ablation, stage) for stage in STAGES)
    stderr.print(
        f"{ablation.name}: {counted(len(ablation.levers), 'lever')} in {counted(len(ablation.settings), 'setting')} "
        f"({', '.join(ablation.settings)}) with {counted(len(ablation.seeds), 'seed')}: {counted(runs, 'run')} of "
        f"{probe} client MACs, then survivors with {whole}; in {folder}"
    )


def _compute(ablation: Ablation, stage: StageName) -> str:
    return " or ".join(
        dict.fromkeys(format_quantity(ablation.compute(setting, stage)) for setting in ablation.settings)
    )
