"""Validation of a fitness: how well it ranks networks of equal MACs by their measured accuracies."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.figures import notebook_html, png_element
from fedpareto.fitness.settings import load_settings
from fedpareto.search.query.subject import RunImages, find_space, find_subject
from fedpareto.search.ranking.fitting.fitting import FITTED, Fitted, FittingData, fit_fitness
from fedpareto.search.ranking.fitting.weights import check_fittable
from fedpareto.search.ranking.measuring.accuracies import read_accuracies
from fedpareto.search.ranking.measuring.measured_sample import Sample, sample_of
from fedpareto.search.ranking.measuring.of_run import DESIGN, SUBNETS, measured_of_run
from fedpareto.search.ranking.options import RankingOptions, check_options
from fedpareto.search.ranking.plot import plot_ranking
from fedpareto.search.ranking.report import print_ranking, rank, ranking_to_json
from fedpareto.supernet.common.arguments import checked, plain
from fedpareto.supernet.common.errors import UserError, unknown_name
from fedpareto.supernet.common.formats.typed_values import typed_fields
from fedpareto.supernet.common.storage.files import check_output, write_text
from fedpareto.supernet.common.storage.signatures import read_keys
from fedpareto.supernet.common.terminal.console import silence
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping
from fedpareto.supernet.space import SearchSpace

#: Files in the output folder, beside those of accuracies.
REPORT, PLOT, FITNESS = "report.json", "accuracy.png", "fitness.yaml"


@dataclasses.dataclass(frozen=True, repr=False)
class FitnessValidation:
    """Rank correlations of a fitness with measured accuracies, and the fitness that was fitted to them.

    Attributes:
        folder: holds the report, the plot, the accuracies and fitted weights.
        report: rank correlations with their intervals, as in ``report.json``.
        sample: the networks with their accuracies.
        fitted: the fitted fitness; None where nothing was fitted.
    """

    folder: Path
    report: Mapping[str, Any]
    sample: Sample
    fitted: Fitted | None

    def __repr__(self) -> str:
        within = self.report["kendall"]["fitness"]["within"]["value"]
        tau = "not known" if within is None else f"{within:.2f}"
        networks = counted(len(self.sample), "network")
        return f"FitnessValidation({networks} of {self.sample.space.name}: Kendall τ within bands of MACs {tau})"

    def _repr_html_(self) -> str:
        return notebook_html(repr(self), png_element(self.folder / PLOT))


@checked
def validate_fitness(run: str | Path | None = None, *, progress: bool = True, **options: Any) -> FitnessValidation:
    """Measure how well the fitness ranks networks of equal MACs by accuracy, and fit it if asked to.

    Prints the tables that the command prints.

    Args:
        run: folder of a trained run, whose subnets are measured; or give ``accuracies`` and ``space``.
        progress: show progress.
        options: all other options of ``validate-fitness``, with underscores for dashes; ``data_root`` for
            ``--data.root``.

    Raises:
        UserError: an option is unknown or not possible, or a file is missing or damaged.

    >>> import fedpareto as fp
    >>> federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1}
    >>> result = fp.train(data="digits", rounds=1, **federation, output="runs/ranked", progress=False)
    >>> found = fp.validate_fitness(result.folder, subnets=8, bands=2, images=20)  # doctest: +ELLIPSIS
    Kendall's τ with accuracy, ...
    >>> found.folder.name
    'validation'
    """
    given = dict(options)
    root = given.pop("data_root", None)
    known = {field.name for field in dataclasses.fields(RankingOptions)} - {"data", "run"}
    for name in given:
        if name not in known:
            raise UserError(unknown_name("option", name, sorted({*known, "data_root"})))
    texts = {name: str(value) if isinstance(value, Path) else plain(value) for name, value in given.items()}
    named = typed_fields(RankingOptions, {**texts, **({} if run is None else {"run": str(run)})})
    with contextlib.nullcontext() if progress else silence():
        return validate(RankingOptions(**named, data=RunImages(None if root is None else str(root))))


def validate(options: RankingOptions) -> FitnessValidation:
    """Rank networks as the options say, print what is found, and write it.

    Raises:
        UserError: options do not go together, or a file is missing, damaged or cannot be written.
    """
    check_options(options)
    for name in (SUBNETS, DESIGN, REPORT, PLOT, FITNESS):
        check_output(options.folder / name, overwrite=True)
    measured, settings = _given(options) if options.run is None else _of_run(options, options.run)
    sample = measured.judged
    with progress_display("ranking"):
        ranking = rank(sample, settings, options.seed)
    report: dict[str, Any] = {"space": sample.space.name, "fitness": settings_to_mapping(settings)}
    report |= ranking_to_json(sample, ranking)
    print_ranking(sample, ranking, f"{counted(len(sample), 'network')} of {sample.space.name}")
    fitnesses, fitted = {"fitness": settings}, None
    _write_report(options, report)
    if options.fit:

        def keep(found: Mapping[str, Any]) -> None:
            report["fit"] = found
            _write_report(options, report)

        fitted = fit_fitness(options, measured, settings, options.folder / FITNESS, keep)
        fitnesses[FITTED] = fitted.settings
    plot_ranking(options.folder / PLOT, sample, fitnesses)
    return FitnessValidation(options.folder, report, sample, fitted)


def _given(options: RankingOptions) -> tuple[FittingData, FitnessSettings]:
    """Return the networks of a file of accuracies, and the fitness to judge."""
    space = find_space(options.space, None, options.classes)
    settings = _judged(options, space, space.fitness)
    measured = read_accuracies(Path(str(options.accuracies)))
    architectures, readings = [each.architecture for each in measured], [each.reading for each in measured]
    return FittingData(sample_of(space, architectures, readings, width=options.band_width)), settings


def _of_run(options: RankingOptions, folder: str) -> tuple[FittingData, FitnessSettings]:
    """Return the networks of a run, and the fitness to judge."""
    trusted = read_keys(None, options.verify).verify
    if trusted is not None:
        from fedpareto.training.runs.verification import verify_run  # noqa: PLC0415 - imports torch

        verify_run(Path(folder), options.checkpoint, trusted)
    subject = find_subject(None, folder, None, None)
    settings = _judged(options, subject.space, subject.fitness)
    return measured_of_run(options, subject, folder), settings


def _judged(options: RankingOptions, space: SearchSpace, own: FitnessSettings) -> FitnessSettings:
    """Return the fitness to judge, and refuse one that cannot be fitted if it is to be."""
    settings = own if options.fitness is None else load_settings(options.fitness, space)
    if options.fit and not options.learns:
        check_fittable(settings)
    return settings


def _write_report(options: RankingOptions, report: Mapping[str, Any]) -> None:
    write_text(options.folder / REPORT, json.dumps(report, indent=2) + "\n")
