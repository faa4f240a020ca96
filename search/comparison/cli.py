"""``compare-methods``: several methods on the same images, clients and compute, with several seeds; one table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cache.progress import shown
from search.comparison.differences import differences, differences_cells, differences_header, differences_markdown
from search.comparison.fairness import judged, same_checkpoint
from search.comparison.fields import check_budgets
from search.comparison.outcome import Outcome, read_outcome, write_outcome
from search.comparison.plot import plot_rows
from search.comparison.study import Study, Trial, read_study, trial_name
from search.comparison.summary import cells, header, rows, to_csv, to_markdown
from supernet.command_line import options_parser
from supernet.console import next_step, print_table, run_command, stderr
from supernet.errors import UserError
from supernet.files import check_output, check_writable, write_text
from supernet.probes import exists
from supernet.units import format_at_least, format_quantity, parse_quantity
from supernet.words import counted, shell
from training.unused_settings import read_only

PROG = "compare-methods"

#: Files in the output folder, beside the runs and their results.
TABLE, PAGE, PLOT = "table.csv", "table.md", "accuracy.png"


@dataclasses.dataclass
class Options:
    """What to compare, and where.

    Attributes:
        config: YAML file of the study: name, methods, seeds, budgets, run.
        output: folder of runs and results; runs/NAME when left out. What is finished there is not run again.
        data_root: folder of the images, in place of the study's.
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
        PROG, "Compare training methods on the same images, clients and compute, over several seeds.", Options
    )
    options = parser.parse(arguments)
    if options.jobs < 1:
        raise UserError(f"jobs is {options.jobs}; it must be at least 1")
    study = read_study(Path(options.config), options.data_root)
    folder = Path(options.output or f"runs/{study.name}")
    check_writable(folder / "runs")
    for name in (TABLE, PAGE, PLOT):
        check_output(folder / name, overwrite=True)
    _describe(study, folder)
    check_budgets(study.trials[0].config.space, study.budgets)
    try:
        _run_trials(study, folder, options.jobs)
    except KeyboardInterrupt:
        stderr.print("the same command goes on where this one stopped")
        next_step(shell([PROG, *arguments]))
        raise
    finally:
        left_out = _report(study, folder)
    if left_out:
        raise UserError(
            f"{left_out} of {counted(len(study.trials), 'run')} left out of the table, as said above; raise the "
            "study's compute until a step of each client is a small share of it, give methods settings that differ, "
            "and where a run is of an older program remove its result and its folder"
        )
    from training.session import next_search  # noqa: PLC0415 - imports torch

    run = folder / "runs" / study.trials[0].name
    next_step(next_search(run, format_at_least(study.budgets[-1])))


def _describe(study: Study, folder: Path) -> None:
    first = study.trials[0].config
    compute = f"{first.compute} client MACs"
    if study.reference is not None:
        compute = f"the client MACs of {counted(first.rounds, 'round')} of {study.reference}"
    stderr.print(
        f"{study.name}: {counted(len(study.labels), 'method')} with {counted(len(study.seeds), 'seed')}, {compute} "
        f"each; budgets "
        f"{', '.join(format_quantity(budget) for budget in study.budgets)} MACs; in {folder}"
    )


def _run_trials(study: Study, folder: Path, jobs: int) -> None:
    # Both import torch.
    from search.comparison.measure import measure  # noqa: PLC0415
    from search.comparison.trials import Trials  # noqa: PLC0415

    first = [trial for trial in study.trials if trial.label == study.reference]
    others = [trial for trial in study.trials if trial.label != study.reference]
    if not all(exists(_outcome_path(folder, trial)) for trial in study.trials):
        _check_test_images(study)
    with shown("training") as listener:
        trials = Trials(folder / "runs", jobs, listener)
        for stage in (first, others):
            waiting = [trial for trial in stage if not exists(_outcome_path(folder, trial))]
            limited = [_with_compute(study, folder, trial) for trial in waiting]
            for trial, run in trials.run(limited):
                write_outcome(_outcome_path(folder, trial), measure(trial, run, study.budgets))


def _check_test_images(study: Study) -> None:
    """Refuse images without a test split, which would end in an error after hours of training."""
    from training.data.sources import list_images  # noqa: PLC0415 - imports torch

    data = study.trials[0].config.data
    list_images(data.name, data.root, "test", download=data.download)


def _with_compute(study: Study, folder: Path, trial: Trial) -> Trial:
    """Return a trial that computes as much as the reference did with its seed; the reference itself as it is."""
    if study.reference in (None, trial.label):
        return trial
    reference = dataclasses.replace(trial, label=str(study.reference))
    compute = read_outcome(_outcome_path(folder, reference)).compute
    return dataclasses.replace(trial, config=read_only(dataclasses.replace(trial.config, compute=str(compute))))


def _outcome_path(folder: Path, trial: Trial) -> Path:
    return folder / "results" / f"{trial.name}.json"


def _outcome(path: Path, trial: Trial) -> Outcome:
    """Return the outcome of a trial, and refuse that of another one."""
    outcome = read_outcome(path)
    if (outcome.label, outcome.seed) != (trial.label, trial.seed):
        raise UserError(
            f"{path} is of {outcome.label} with seed {outcome.seed}; remove it, and {trial.name} is measured again"
        )
    return outcome


def _report(study: Study, folder: Path) -> int:
    """Write table and plot of what is finished and may be compared; return how many runs are left out."""
    paths = [_outcome_path(folder, trial) for trial in study.trials]
    finished = [_outcome(path, trial) for path, trial in zip(paths, study.trials, strict=True) if exists(path)]
    limits = _limits(study, finished)
    found = judged(
        # Without its reference a run can be compared with nothing yet.
        [outcome for outcome in finished if outcome.seed in limits],
        limits,
        lambda one, other: same_checkpoint(_run_folder(folder, one), _run_folder(folder, other)),
    )
    for reason in found.refused:
        stderr.print(f"left out: {reason}")
    if found.fair:
        _write_tables(study, folder, found.fair)
    return len(found.refused)


def _limits(study: Study, outcomes: Sequence[Outcome]) -> dict[int, int]:
    """Return by seed what all runs were to compute; of a reference, what that has computed."""
    if study.reference is not None:
        return {outcome.seed: outcome.compute for outcome in outcomes if outcome.label == study.reference}
    return {trial.seed: parse_quantity(str(trial.config.compute)) for trial in study.trials}


def _run_folder(folder: Path, outcome: Outcome) -> Path:
    return folder / "runs" / trial_name(outcome.label, outcome.seed)


def _write_tables(study: Study, folder: Path, outcomes: Sequence[Outcome]) -> None:
    found = rows(study.labels, study.budgets, outcomes)
    write_text(folder / TABLE, to_csv(found, study.budgets))
    apart = differences(study.labels, study.budgets, outcomes)
    pages = [to_markdown(found, study.budgets), *([differences_markdown(apart, study.budgets)] if apart else [])]
    write_text(folder / PAGE, "\n".join(pages))
    plot_rows(folder / PLOT, study.name, found)
    title = f"{study.name}: test accuracy, {len(outcomes)} of {counted(len(study.trials), 'run')}"
    print_table(title, header(study.budgets), [cells(row) for row in found])
    if apart:
        lines = [differences_cells(difference) for difference in apart]
        print_table(f"{study.name}: seed by seed", differences_header(study.budgets), lines)
    stderr.print(f"table: {folder / TABLE}, {folder / PAGE}; plot: {folder / PLOT}")
