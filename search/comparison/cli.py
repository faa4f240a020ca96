"""The command ``compare-methods``, which compares training methods on the same images, clients and compute."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedpareto.search.comparison.fields import check_budgets
from fedpareto.search.comparison.going_on import check_jobs, told_to_go_on
from fedpareto.search.comparison.outcome import read_outcome, write_outcome
from fedpareto.search.comparison.reporting import PAGE, PLOT, PRICE, TABLE, is_measured, outcome_path, report
from fedpareto.search.comparison.study import Study, Trial, read_study
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_at_least, format_quantity
from fedpareto.supernet.common.storage.files import check_output, check_writable
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.console import next_step, run_command, stderr
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import counted

PROG = "compare-methods"


@dataclasses.dataclass
class CompareOptions:
    """Options of ``compare-methods``.

    Attributes:
        config: YAML file of the study: name, methods, seeds, budgets, run; yardsticks adds what one would get without
            a supernet, reference makes one method's rounds the compute of all.
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
        PROG, "Compare training methods on the same images, clients and compute, over several seeds.", CompareOptions
    )
    options = parser.parse(arguments)
    check_jobs(options.jobs)
    study = read_study(Path(options.config), options.data_root)
    folder = Path(options.output or f"runs/{study.name}")
    check_writable(folder / "runs")
    for name in (TABLE, PAGE, PLOT, PRICE):
        check_output(folder / name, overwrite=True)
    _describe(study, folder)
    check_budgets(study.trials[0].config.space, study.budgets)
    try:
        with told_to_go_on(PROG, arguments):
            _run_trials(study, folder, options.jobs)
    finally:
        left_out = report(study, folder)
    if left_out:
        raise UserError(
            f"{left_out} of {counted(len(study.trials), 'run')} left out of the table, as said above; raise the "
            "study's compute until a step of each client is a small share of it, give methods settings that differ, "
            "and where a run is of an older program remove its result and its folder"
        )
    from fedpareto.training.session import next_search  # noqa: PLC0415 - imports torch

    run = folder / "runs" / study.trials[0].name
    next_step(next_search(run, format_at_least(study.budgets[-1])))


def _describe(study: Study, folder: Path) -> None:
    first = study.trials[0].config
    compute = f"{first.compute} client MACs"
    if study.reference is not None:
        compute = f"the client MACs of {counted(first.rounds, 'round')} of {study.reference}"
    yardsticks = f"; yardsticks {', '.join(study.kinds)}" if study.kinds else ""
    stderr.print(
        f"{study.name}: {counted(len(study.labels), 'method')} with {counted(len(study.seeds), 'seed')}, {compute} "
        f"each; budgets "
        f"{', '.join(format_quantity(budget) for budget in study.budgets)} MACs{yardsticks}; in {folder}"
    )


def _run_trials(study: Study, folder: Path, jobs: int) -> None:
    # All import torch.
    from fedpareto.search.comparison.measure import measure  # noqa: PLC0415
    from fedpareto.search.comparison.networks import with_networks  # noqa: PLC0415
    from fedpareto.search.comparison.trials import Trials  # noqa: PLC0415

    waiting = [trial for trial in study.trials if not is_measured(study, folder, trial)]
    if waiting:
        _check_test_images(study)
    reference = [trial for trial in study.trials if trial.label == study.reference]
    others = [trial for trial in study.trials if trial.label != study.reference]
    with progress_display("searching") as listener:
        # Before anything is trained: a budget without a network ends the study here.
        found = with_networks([trial for trial in others if trial in waiting], listener)
    with progress_display("training") as listener:
        trials = Trials(folder / "runs", jobs, listener)
        for everything, stage in ((reference, [trial for trial in reference if trial in waiting]), (others, found)):
            # What the others were to compute is known when the reference is measured.
            _check_finished(study, folder, everything)
            for trial, run in trials.run([_with_compute(study, folder, trial) for trial in stage]):
                write_outcome(outcome_path(folder, trial), measure(trial, run, study.budgets))


def _check_finished(study: Study, folder: Path, trials: Iterable[Trial]) -> None:
    """Refuse results of runs that were trained with other settings than the study has now."""
    from fedpareto.search.comparison.trials import check_same, written  # noqa: PLC0415 - imports torch

    for trial in trials:
        # A result whose run was removed is all that there is.
        if exists(outcome_path(folder, trial)) and exists(written(folder / "runs", trial)):
            check_same(_with_compute(study, folder, trial), folder / "runs")


def _check_test_images(study: Study) -> None:
    """Refuse images without a test split now, as the error would otherwise come after hours of training."""
    from fedpareto.training.data.sources import list_images  # noqa: PLC0415 - imports torch

    data = study.trials[0].config.data
    list_images(data.name, data.root, "test", download=data.download)


def _with_compute(study: Study, folder: Path, trial: Trial) -> Trial:
    """Return a trial with the compute that the reference spent with its seed; the reference itself unchanged."""
    if study.reference in (None, trial.label):
        return trial
    reference = dataclasses.replace(trial, label=str(study.reference))
    return study.with_compute(trial, str(read_outcome(outcome_path(folder, reference)).compute))
