"""``validate-fitness``: does the fitness rank networks as their accuracies do, and which weights rank better?"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cache.progress import shown
from fitness.settings import load_settings
from search.ranking.accuracies import Journal, read_accuracies
from search.ranking.fit import Fit, check_enough, check_fittable, fit_weights
from search.ranking.options import Options, check_options, macs_range
from search.ranking.plot import plot_ranking
from search.ranking.report import print_ranking, print_weights, rank, ranking_to_json, settings_to_json
from search.ranking.sample import Sample, sample_of
from search.ranking.sampling import draw_subnets, macs_bands
from search.subject import find_space, find_subject
from supernet.command_line import options_parser
from supernet.console import next_step, run_command, say
from supernet.files import check_output, write_text
from supernet.space import FitnessSettings, SearchSpace
from supernet.units import format_at_least
from supernet.words import command, counted

PROG = "validate-fitness"

#: Files in the output folder.
SUBNETS, REPORT, PLOT, FITNESS = "subnets.jsonl", "report.json", "accuracy.png", "fitness.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    description = "Measure how well the fitness ranks networks of equal MACs by accuracy, and fit its weights."
    parser = options_parser(PROG, description, Options)
    options = Options(**parser.instantiate(parser.parse(arguments)).as_dict())
    check_options(options)
    for name in (SUBNETS, REPORT, PLOT, FITNESS):
        check_output(options.folder / name, overwrite=True)
    sample, settings = _given(options) if options.run is None else _of_run(options, options.run)
    with shown("ranking"):
        ranking = rank(sample, settings, options.seed)
    report: dict[str, Any] = {"space": sample.space.name, "fitness": settings_to_json(settings)}
    report |= ranking_to_json(sample, ranking)
    print_ranking(sample, ranking, f"{counted(len(sample), 'network')} of {sample.space.name}")
    fitnesses = {"fitness": settings}
    _write_report(options, report)
    if options.fit:
        with shown("fitting weights"):
            fit = fit_weights(sample, settings, options.held_out, options.manner, options.seed)
        report["fit"] = _reported(options, sample, settings, fit)
        fitnesses["fitted fitness"] = fit.settings
        _write_report(options, report)
    plot_ranking(options.folder / PLOT, sample, fitnesses)
    say(f"report: {options.folder / REPORT}")
    say(f"plot: {options.folder / PLOT}")
    next_step(_next(options, sample))


def _given(options: Options) -> tuple[Sample, FitnessSettings]:
    """Return the sample of a file of accuracies, and the fitness to judge."""
    space = find_space(options.space, None, options.classes)
    settings = _judged(options, space, space.fitness)
    measured = read_accuracies(Path(str(options.accuracies)))
    architectures, accuracies = [each.architecture for each in measured], [each.accuracy for each in measured]
    return sample_of(space, architectures, accuracies, width=options.band_width), settings


def _of_run(options: Options, folder: str) -> tuple[Sample, FitnessSettings]:
    """Return the sample of a run, measuring what has yet to be, and the fitness to judge.

    The subnets are spread over the fitness that the run was trained with, so that other weights are judged on the same.
    """
    subject = find_subject(None, folder, None, None)
    space, settings = subject.space, _judged(options, subject.space, subject.fitness)
    least, most = macs_range(options, subject.known[0].macs, subject.known[-1].macs)
    bands = macs_bands(least, most, options.bands, options.band_width)

    from search.ranking.measure import conditions, evaluator_of, measure, open_simulated  # noqa: PLC0415 - imports torch
    from training.allocator import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    subnets = draw_subnets(space, subject.fitness, bands, options.subnets, options.seed)
    if options.fit:
        check_enough(np.array([subnet.band for subnet in subnets]), options.held_out)
    with shown("reading the run"):
        run = open_simulated(Path(folder), space, options.checkpoint, options.data.root)
    evaluator = evaluator_of(run, options.images)
    drawn = {"subnets": options.subnets, "bands": bands, "seed": options.seed}
    header = {"space": space.name, "fingerprint": space.fingerprint, **drawn, **conditions(run, evaluator)}
    journal = Journal(options.folder / SUBNETS, {**header, "fitness": settings_to_json(subject.fitness)}, subnets)
    # Reading the images had a bar of its own.
    with shown("evaluating subnets") as listener:
        measure(run, evaluator, journal, listener)
    return sample_of(space, [subnet.architecture for subnet in subnets], journal.accuracies, bands), settings


def _judged(options: Options, space: SearchSpace, own: FitnessSettings) -> FitnessSettings:
    """Return the fitness to judge, and refuse one that cannot be fitted if it is to be."""
    settings = own if options.fitness is None else load_settings(options.fitness, space)
    if options.fit:
        check_fittable(settings)
    return settings


def _write_report(options: Options, report: dict[str, Any]) -> None:
    write_text(options.folder / REPORT, json.dumps(report, indent=2) + "\n")


def _reported(options: Options, sample: Sample, before: FitnessSettings, fit: Fit) -> dict[str, Any]:
    """Write and print fitted weights and how they rank the networks held out; return that as JSON values."""
    path, held_out = options.folder / FITNESS, sample.take(fit.held_out)
    ranking = rank(held_out, fit.settings, options.seed, other=before)
    names = {"fitness": "fitted fitness", "before": "fitness before"}
    print_weights(before, fit.settings)
    print_ranking(held_out, ranking, f"the {counted(len(held_out), 'network')} held out of the fit", names)
    origin = f"# Fitted by {PROG} to the accuracies of {counted(len(fit.fitted), 'network')} of {sample.space.name}.\n"
    write_text(path, origin + yaml.safe_dump(settings_to_json(fit.settings), sort_keys=False))
    say(f"fitted weights: {path}")
    return {
        "settings": settings_to_json(fit.settings),
        "pairs": options.pairs,
        "fields": list(options.manner.fields),
        "strength": fit.strength,
        "cross_validation": {f"{strength:g}": found._asdict() for strength, found in fit.cross_validation.items()},
        "fitted_networks": fit.fitted.tolist(),
        "held_out_networks": fit.held_out.tolist(),
        "held_out": ranking_to_json(held_out, ranking),
    }


def _next(options: Options, sample: Sample) -> str:
    if options.fit:
        weights = options.folder / FITNESS
        if options.run is None:
            given = {"space": options.space, "classes": options.classes}
            return command("build-cache", **given, fitness=weights, output="cache.jsonl")
        budget, images = format_at_least(sample.bands[-1].most), options.data.options
        return command("search-subnet", run=options.run, **images, fitness=weights, flops_budget=budget)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name != "data"}
    changed = {name: value for name, value in given.items() if value != getattr(Options(), name)}
    return command(PROG, **changed, **options.data.options, fit=True)
