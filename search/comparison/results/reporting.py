"""Report of a study: tables, files and a plot of the results that may be compared."""

from collections.abc import Sequence
from pathlib import Path

from fedpareto.search.comparison.results.differences import (
    Difference,
    differences,
    differences_cells,
    differences_csv,
    differences_header,
    differences_markdown,
    price_of_sharing,
)
from fedpareto.search.comparison.results.fairness import JudgedTrial, judged, same_checkpoint
from fedpareto.search.comparison.results.outcome import TrialResult, read_outcome
from fedpareto.search.comparison.results.plot import plot_rows
from fedpareto.search.comparison.results.summary import cells, header, rows, to_csv, to_markdown
from fedpareto.search.comparison.studies.study import Study, Trial, trial_name
from fedpareto.search.comparison.studies.yardsticks import PRICED, Yardstick, YardstickKind, row_label, rows_of
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.console import print_table, stderr
from fedpareto.supernet.common.terminal.words import counted

#: Files in the output folder, beside the runs and their results; the price of sharing only where a study tells it.
TABLE, PAGE, PLOT, PRICE = "table.csv", "table.md", "accuracy.png", "price.csv"

#: Title of the first column of the price of sharing.
_PRICE_TITLE = "sharing less training alone, in points"


def outcome_path(folder: Path, trial: Trial) -> Path:
    """Return the file of a trial's outcome in a study's output folder."""
    return folder / "results" / f"{trial.name}.json"


def report(study: Study, folder: Path) -> int:
    """Write tables and plot of the finished, comparable results; return the number of runs left out.

    Raises:
        UserError: a result is damaged, or of another trial or space; a file cannot be written.
    """
    paths = [(outcome_path(folder, trial), trial) for trial in study.trials]
    finished = [(trial, _outcome(path, trial)) for path, trial in paths if exists(path)]
    judgements = _judgements(study, folder, finished)
    for judgement in judgements:
        for reason in judgement.refused:
            stderr.print(f"left out: {reason}")
    fair = {(outcome.label, outcome.seed) for judgement in judgements for outcome in judgement.fair}
    shown = [(trial, outcome) for trial, outcome in finished if (trial.label, trial.seed) in fair]
    if shown:
        _write_tables(study, folder, shown)
    return sum(len(judgement.refused) for judgement in judgements)


def is_measured(study: Study, folder: Path, trial: Trial) -> bool:
    """Return True if a trial has a result for the budgets that the study has now."""
    path = outcome_path(folder, trial)
    if not exists(path):
        return False
    budgets = read_outcome(path).budgets
    # A yardstick's network is of its own budget, whatever others there are.
    return trial.yardstick is not None or not budgets or list(budgets) == list(study.budgets)


def _outcome(path: Path, trial: Trial) -> TrialResult:
    """Read the outcome of a trial, and refuse that of another one."""
    outcome = read_outcome(path)
    if (outcome.label, outcome.seed) != (trial.label, trial.seed):
        raise UserError(
            f"{path} is of {outcome.label} with seed {outcome.seed}; remove it, and {trial.name} is measured again"
        )
    return outcome


def _judgements(study: Study, folder: Path, finished: Sequence[tuple[Trial, TrialResult]]) -> list[JudgedTrial]:
    """Judge the finished outcomes: methods with each other, every kind of yardstick by its own compute."""
    limits = _limits(study, [outcome for _, outcome in finished])

    def same_weights(one: TrialResult, other: TrialResult) -> bool:
        return same_checkpoint(_run_folder(folder, one), _run_folder(folder, other))

    judgements = []
    for kind in (None, *study.kinds):
        # Without its reference a run can be compared with nothing yet.
        outcomes = [outcome for trial, outcome in finished if _kind(trial) == kind and outcome.seed in limits]
        if kind == "linear":
            judgements.append(JudgedTrial(outcomes, []))
        else:
            parts = len(study.budgets) if kind == "share" else 1
            own = {seed: limit // parts for seed, limit in limits.items()}
            judgements.append(judged(outcomes, own, same_weights))
    return judgements


def _kind(trial: Trial) -> YardstickKind | None:
    return None if trial.yardstick is None else trial.yardstick.kind


def _limits(study: Study, outcomes: Sequence[TrialResult]) -> dict[int, int]:
    """Return the compute that all methods were to spend, by seed: the given one, or that of the reference."""
    if study.reference is not None:
        return {outcome.seed: outcome.compute for outcome in outcomes if outcome.label == study.reference}
    return {trial.seed: parse_quantity(str(trial.config.compute)) for trial in study.methods}


def _run_folder(folder: Path, outcome: TrialResult) -> Path:
    return folder / "runs" / trial_name(outcome.label, outcome.seed)


def _write_tables(study: Study, folder: Path, shown: Sequence[tuple[Trial, TrialResult]]) -> None:
    outcomes, budgets = _rows_of(study, shown), study.budgets
    # Imports torch.
    from fedpareto.search.comparison.served import served_clients  # noqa: PLC0415

    yardsticks = [row_label(kind) for kind in study.kinds]
    found = rows([*study.labels, *yardsticks], budgets, outcomes, served_clients(study, outcomes))
    apart, price = differences(study.labels, budgets, outcomes), _price(study, outcomes)
    write_text(folder / TABLE, to_csv(found, budgets))
    pages = [to_markdown(found, budgets)]
    pages += [differences_markdown(apart, budgets)] if apart else []
    pages += [differences_markdown(price, budgets, _PRICE_TITLE)] if price else []
    write_text(folder / PAGE, "\n".join(pages))
    if price:
        write_text(folder / PRICE, differences_csv(price, budgets))
    else:
        (folder / PRICE).unlink(missing_ok=True)
    plot_rows(folder / PLOT, study.name, found, yardsticks)
    title = f"{study.name}: test accuracy, {len(shown)} of {counted(len(study.trials), 'run')}"
    print_table(title, header(budgets), [cells(row) for row in found])
    if study.kinds:
        stderr.print("compute, bytes and rounds of a yardstick are those of its networks together, one for each budget")
    _print_differences(f"{study.name}: seed by seed", differences_header(budgets), apart)
    _print_differences(f"{study.name}: the price of sharing", differences_header(budgets, _PRICE_TITLE), price)
    prices = f", {folder / PRICE}" if price else ""
    stderr.print(f"table: {folder / TABLE}, {folder / PAGE}{prices}; plot: {folder / PLOT}")


def _print_differences(title: str, names: Sequence[str], found: Sequence[Difference]) -> None:
    if found:
        print_table(title, names, [differences_cells(difference) for difference in found])


def _rows_of(study: Study, shown: Sequence[tuple[Trial, TrialResult]]) -> list[TrialResult]:
    """Return an outcome for every row of the table and seed: those of methods, and those of yardsticks together."""
    by_yardstick: dict[Yardstick, list[TrialResult]] = {}
    for trial, outcome in shown:
        if trial.yardstick is not None:
            by_yardstick.setdefault(trial.yardstick, []).append(outcome)
    methods = [outcome for trial, outcome in shown if trial.yardstick is None]
    return [*methods, *rows_of(study.kinds, study.budgets, by_yardstick)]


def _price(study: Study, outcomes: Sequence[TrialResult]) -> list[Difference]:
    """Return the price of sharing for every supernet method; methods of one network share nothing."""
    single = {trial.label for trial in study.methods if trial.config.spec.single_network}
    supernets = [label for label in study.labels if label not in single]
    alone = [row_label(kind) for kind in PRICED if kind in study.kinds]
    return price_of_sharing(supernets, alone, study.budgets, outcomes)
