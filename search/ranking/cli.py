"""The command ``validate-fitness``, which measures how well the fitness ranks networks and fits a better one."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.fitness.settings import load_settings
from fedpareto.search.query.subject import find_space, find_subject
from fedpareto.search.ranking.accuracies import read_accuracies
from fedpareto.search.ranking.bands import Band
from fedpareto.search.ranking.fit import check_fittable
from fedpareto.search.ranking.fitting import FITTED, FittingData, fit_fitness
from fedpareto.search.ranking.measured_sample import sample_of
from fedpareto.search.ranking.of_run import DESIGN, SUBNETS, measured_of_run
from fedpareto.search.ranking.options import RankingOptions, check_options
from fedpareto.search.ranking.plot import plot_ranking
from fedpareto.search.ranking.report import print_ranking, rank, ranking_to_json
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.formats.units import format_at_least
from fedpareto.supernet.common.storage.files import check_output, write_text
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping
from fedpareto.supernet.space import SearchSpace

PROG = "validate-fitness"

#: Files in the output folder, beside those of accuracies.
REPORT, PLOT, FITNESS = "report.json", "accuracy.png", "fitness.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    description = "Measure how well the fitness ranks networks of equal MACs by accuracy, and fit it."
    parser = options_parser(PROG, description, RankingOptions)
    options = RankingOptions(**parser.instantiate(parser.parse(arguments)).as_dict())
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
            _write_report(options, {**report, "fit": found})

        fitted = fit_fitness(options, measured, settings, options.folder / FITNESS, keep)
        fitnesses[FITTED] = fitted.settings
    plot_ranking(options.folder / PLOT, sample, fitnesses)
    say(f"report: {options.folder / REPORT}")
    say(f"plot: {options.folder / PLOT}")
    if fitted is not None and fitted.ahead <= 0:
        say(f"{options.folder / FITNESS} ranks no better than the fitness before, which the next command goes on with")
    next_step(_next(options, sample.bands, better=fitted is not None and fitted.ahead > 0))


def _given(options: RankingOptions) -> tuple[FittingData, FitnessSettings]:
    """Return the networks of a file of accuracies, and the fitness to judge."""
    space = find_space(options.space, None, options.classes)
    settings = _judged(options, space, space.fitness)
    measured = read_accuracies(Path(str(options.accuracies)))
    architectures, readings = [each.architecture for each in measured], [each.reading for each in measured]
    return FittingData(sample_of(space, architectures, readings, width=options.band_width)), settings


def _of_run(options: RankingOptions, folder: str) -> tuple[FittingData, FitnessSettings]:
    """Return the networks of a run, and the fitness to judge."""
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


def _next(options: RankingOptions, bands: Sequence[Band], *, better: bool) -> str:
    if options.fit:
        weights = options.folder / FITNESS if better else options.fitness
        if options.run is None:
            given = {"space": options.space, "classes": options.classes}
            return command("build-cache", **given, fitness=weights, output="cache.jsonl")
        budget, images = format_at_least(bands[-1].most), options.data.options
        return command("search-subnet", run=options.run, **images, fitness=weights, flops_budget=budget)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name != "data"}
    changed = {name: value for name, value in given.items() if value != getattr(RankingOptions(), name)}
    return command(PROG, **changed, **options.data.options, fit=True)
