"""Comparison of methods: the runs of a study are trained, measured, and put into tables and a plot."""

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from fedpareto.cache.figures import notebook_html, png_element
from fedpareto.search.comparison.going_on import check_jobs
from fedpareto.search.comparison.results.outcome import read_outcome, write_outcome
from fedpareto.search.comparison.results.reporting import PAGE, PLOT, PRICE, TABLE, is_measured, outcome_path, report
from fedpareto.search.comparison.studies.fields import check_budgets
from fedpareto.search.comparison.studies.study import Study, Trial, read_study
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.storage.files import check_output, check_writable, read_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.console import silence, stderr
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import counted


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """A finished study.

    Attributes:
        study: what was compared.
        folder: holds the runs, the tables and the plot.
    """

    study: Study
    folder: Path

    def __repr__(self) -> str:
        methods, seeds = counted(len(self.study.labels), "method"), counted(len(self.study.seeds), "seed")
        return f"Comparison({self.study.name}: {methods} with {seeds}, in {self.folder})"

    @property
    def table(self) -> str:
        """The tables in Markdown: accuracy of every method at every budget, mean and spread over the seeds."""
        return read_text(self.folder / PAGE)

    def _repr_html_(self) -> str:
        return notebook_html(repr(self), png_element(self.folder / PLOT))


@checked
def compare(
    config: str | Path,
    *,
    output: str | Path | None = None,
    data_root: str | Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Comparison:
    """Compare training methods on the same images, clients and compute, over several seeds.

    Prints the tables that ``compare-methods`` prints. What is finished in the output is not run again.

    Args:
        config: YAML file of the study: name, methods, seeds, budgets, run.
        output: folder of runs and results; runs/NAME when left out.
        data_root: folder of the images, in place of the study's.
        jobs: runs at once, each a process of its own: methods that a program has registered are known there only by
            the entry point of an installed package.
        progress: show progress.

    Raises:
        UserError: the study cannot be read, a run failed, or results may not be compared.

    >>> import yaml
    >>> import fedpareto as fp
    >>> from pathlib import Path
    >>> federation = {"clients": {"count": 4, "per_round": 2}, "client": {"epochs": 1}}
    >>> run = {"space": "mobilenet-tiny", "compute": "8G", **federation}
    >>> methods = {"deepfednas": {"method": "deepfednas"}, "cotrain": {"method": "cotrain"}}
    >>> study = {"name": "two", "methods": methods, "seeds": [0], "budgets": ["2M"], "run": run}
    >>> _ = Path("study.yaml").write_text(yaml.safe_dump(study))
    >>> found = fp.compare("study.yaml")  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
      two: test accuracy, 2 of 2 runs ...
    >>> found
    Comparison(two: 2 methods with 1 seed, in runs/two)
    """
    with contextlib.nullcontext() if progress else silence():
        return _compared(Path(config), output, None if data_root is None else str(data_root), jobs)


def _compared(config: Path, output: str | Path | None, data_root: str | None, jobs: int) -> Comparison:
    check_jobs(jobs)
    study = read_study(config, data_root)
    folder = Path(output or f"runs/{study.name}")
    check_writable(folder / "runs")
    for name in (TABLE, PAGE, PLOT, PRICE):
        check_output(folder / name, overwrite=True)
    _describe(study, folder)
    check_budgets(study.trials[0].config.space, study.budgets)
    try:
        _run_trials(study, folder, jobs)
    finally:
        left_out = report(study, folder)
    if left_out:
        raise UserError(
            f"{left_out} of {counted(len(study.trials), 'run')} left out of the table, as said above; raise the "
            "study's compute until a step of each client is a small share of it, give methods settings that differ, "
            "and where a run is of an older program remove its result and its folder"
        )
    return Comparison(study, folder)


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
    """Refuse images without a test split, which would end in an error after hours of training."""
    from fedpareto.training.data.sources import list_images  # noqa: PLC0415 - imports torch

    data = study.trials[0].config.data
    list_images(data.name, data.root, "test", download=data.download, reading=data.reading)


def _with_compute(study: Study, folder: Path, trial: Trial) -> Trial:
    """Return a trial that computes as much as the reference did with its seed; the reference itself as it is."""
    if study.reference in (None, trial.label):
        return trial
    reference = dataclasses.replace(trial, label=str(study.reference))
    return study.with_compute(trial, str(read_outcome(outcome_path(folder, reference)).compute))
