"""Tables of an ablation: a row for each recipe, as CSV, Markdown and on the terminal."""

import csv
import dataclasses
import io
from collections.abc import Sequence

from fedpareto.search.comparison.results.summary import MeanStd, markdown_table
from fedpareto.search.recipes.ablation import ALL, BASE, Ablation, StageName
from fedpareto.search.recipes.judging import Figures, Verdict
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted

#: Columns of the CSV file.
_COLUMNS = (
    *("stage", "setting", "recipe", "levers", "seeds", "budget_macs", "accuracy_mean", "accuracy_std"),
    *("difference_mean", "difference_std", "survived"),
)

#: Name, in the CSV file, of the mean over all budgets.
MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, names of columns, and rows of cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Return it as a section of Markdown."""
        return f"## {self.title}\n\n{markdown_table(self.header, self.rows)}"


def tables(ablation: Ablation, stage: StageName, found: Sequence[Verdict]) -> list[Table]:
    """Return a table of results for each setting, and a last one with the differences from the base over all."""
    reached = [_of_setting(ablation, setting, stage, found) for setting in ablation.settings]
    return [*(table for table in reached if table.rows), _against_base(ablation, stage, found)]


def _of_setting(ablation: Ablation, setting: str, stage: StageName, found: Sequence[Verdict]) -> Table:
    compute = format_quantity(ablation.compute(setting, stage))
    here = [(verdict, verdict.settings[setting]) for verdict in found if setting in verdict.settings]
    return Table(
        f"{ablation.name}, {setting}: validation accuracy after {compute} client MACs",
        [
            *("recipe", "seeds", *(f"at {format_quantity(budget)} MACs" for budget in ablation.budgets)),
            *("mean of budgets", "points above the base"),
        ],
        [_reached_cells(ablation, verdict, figures) for verdict, figures in here],
    )


def _reached_cells(ablation: Ablation, verdict: Verdict, figures: Figures) -> list[str]:
    return [
        verdict.recipe.name,
        str(figures.seeds),
        *(f"{figures.accuracies[budget].in_points()} %" for budget in ablation.budgets),
        f"{figures.mean.in_points()} %",
        _points(figures.gain),
    ]


def _against_base(ablation: Ablation, stage: StageName, found: Sequence[Verdict]) -> Table:
    share = f"{ablation.probe:.0%} of the compute" if stage == "probe" else "the whole compute"
    return Table(
        f"{ablation.name}: points above the base, seed by seed ({counted(len(ablation.seeds), 'seed')}), {share}",
        ["recipe", *ablation.settings, "all settings", "survives"],
        [_verdict_cells(ablation, verdict) for verdict in found if verdict.recipe.name != BASE],
    )


def _verdict_cells(ablation: Ablation, verdict: Verdict) -> list[str]:
    gains = [verdict.settings[name].gain if name in verdict.settings else None for name in ablation.settings]
    survives = {True: "yes", False: "no", None: "–"}[verdict.survives]
    return [verdict.recipe.name, *map(_points, gains), _points(verdict.gain), survives]


def _points(spread: MeanStd | None) -> str:
    return "–" if spread is None else spread.in_points("+")


def to_csv(ablation: Ablation, stages: Sequence[tuple[StageName, Sequence[Verdict]]]) -> str:
    """Return CSV with a line for every stage, recipe, setting and budget, in full precision; accuracies are shares.

    The budget ``mean`` is the mean over all of them, the setting ``all`` that over all settings.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for stage, found in stages:
        for verdict in found:
            writer.writerows([stage, *line] for line in _lines(ablation, verdict))
    return text.getvalue()


def _lines(ablation: Ablation, verdict: Verdict) -> list[list[object]]:
    recipe = [verdict.recipe.name, "+".join(verdict.recipe.levers)]
    survived = "" if verdict.survives is None else str(verdict.survives).lower()
    lines: list[list[object]] = []
    for setting, figures in verdict.settings.items():
        start = [setting, *recipe, figures.seeds]
        for budget, accuracy in figures.accuracies.items():
            apart = None if figures.apart is None else figures.apart[budget]
            lines.append([*start, budget, *_both(accuracy), *_both(apart), survived])
        lines.append([*start, MEAN, *_both(figures.mean), *_both(figures.gain), survived])
    if verdict.gain is not None:
        lines.append([ALL, *recipe, len(ablation.seeds), MEAN, "", "", *_both(verdict.gain), survived])
    return lines


def _both(spread: MeanStd | None) -> tuple[object, object]:
    return ("", "") if spread is None else (spread.mean, spread.deviation)
