"""Report of an ablation: its tables, written and printed, and the command that trains by the best recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.recipes.ablation import BASE, Ablation, Recipe, planned
from fedpareto.search.recipes.stages import Standing, runs_folder
from fedpareto.search.recipes.tables import Table, tables, to_csv
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.terminal.console import print_table, stderr
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.training.config.rules.unused_settings import settings_of

#: Files in the output folder, beside the stages' runs and results.
TABLE, PAGE = "table.csv", "table.md"


def report(ablation: Ablation, folder: Path, found: Sequence[Standing]) -> None:
    """Write and print the tables of the finished stages, and tell which results are left out.

    Raises:
        UserError: a file cannot be written.
    """
    for standing in found:
        for reason in standing.refused:
            stderr.print(f"left out: {reason}")
    drawn = [table for one in found if one.verdicts for table in tables(ablation, one.stage, one.verdicts)]
    if not drawn:
        return
    write_text(folder / TABLE, to_csv(ablation, [(standing.stage, standing.verdicts) for standing in found]))
    write_text(folder / PAGE, _page(ablation, drawn))
    for table in drawn:
        print_table(table.title, table.header, table.rows)
    survivors = found[0].survivors
    if survivors is not None:
        stderr.print(f"survived the probe: {', '.join(survivors) or 'no recipe'} ({_rule(ablation)})")
    stderr.print(f"tables: {folder / TABLE}, {folder / PAGE}")


def _rule(ablation: Ablation) -> str:
    keep = f"{ablation.keep:g}"
    return f"in points, at least {keep} above the base on average, and in no setting over {keep} below"


def _page(ablation: Ablation, drawn: Sequence[Table]) -> str:
    compared = f"{counted(len(ablation.levers), 'lever')}, {counted(len(ablation.seeds), 'seed')}"
    intro = f"# {ablation.name}\n\n{compared}; a recipe survives by this rule: {_rule(ablation)}.\n"
    return "\n".join([intro, *(table.to_markdown() for table in drawn)])


def best_recipe(found: Sequence[Standing]) -> Recipe:
    """Return the recipe that gained most at the whole compute; the base where none has gained."""
    gains = {verdict.recipe: verdict.gain.mean for verdict in found[-1].verdicts if verdict.gain is not None}
    best = max(gains, key=lambda recipe: gains[recipe], default=None)
    if best is None or found[-1].stage == "probe" or gains[best] <= 0:
        return Recipe(BASE, ())
    return best


def training_command(ablation: Ablation, folder: Path, found: Sequence[Standing], data_root: str | None) -> str:
    """Return the command that trains by the best recipe in the first setting: the base's run with changed options."""
    stage, setting = found[-1].stage, next(iter(ablation.settings))
    base = planned(ablation, stage, [Recipe(BASE, ())])[0]
    best = planned(ablation, "full", [best_recipe(found)])[0]
    was, now = settings_of(base.trial.config), settings_of(best.trial.config)
    options = {name: _text(value) for name, value in now.items() if value != was[name]}
    if data_root is not None:
        options["data.root"] = data_root
    config = runs_folder(folder, stage) / f"{base.trial.name}.yaml"
    given = {"config": config, "output": f"runs/{ablation.name}-{setting}", "tracking.progress": "true"}
    return command("train-supernet", **given, **options)


def _text(value: Any) -> str:
    """Return a setting as an option's value."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
