"""Measured networks of a trained run: those that judge a fitness, and those that one is learned from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.ranking.fitting.fitting import FittingData
from fedpareto.search.ranking.fitting.learning import Learned
from fedpareto.search.ranking.fitting.weights import check_enough
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.search.ranking.measuring.bands import Subnet, draw_subnets, macs_bands
from fedpareto.search.ranking.measuring.design import Region
from fedpareto.search.ranking.measuring.measured_sample import Sample, sample_of
from fedpareto.search.ranking.measuring.rounds import first_subnets, learn_in_rounds
from fedpareto.search.ranking.options import RankingOptions, macs_range
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping

#: Files of accuracies in the output folder: of what judges, of what is learned from, of what searches found.
SUBNETS, DESIGN, FOUND = "subnets.jsonl", "design.jsonl", "found-{}.jsonl"


def measured_of_run(options: RankingOptions, subject: SearchTarget, folder: str) -> FittingData:
    """Measure the networks of a run that judge a fitness; return them with the function that learns one from others.

    The subnets are spread over the fitness that the run was trained with, so that other weights are judged on the same.

    Raises:
        UserError: there are too few networks, or the run's images are not those it was trained on.
    """
    space, macs = subject.space, macs_range(options, subject.known[0].macs, subject.known[-1].macs)
    bands = macs_bands(*macs, options.bands, options.band_width)

    from fedpareto.search.ranking.measuring.measure import Measurer, evaluator_of, open_simulated  # noqa: PLC0415 - imports torch
    from fedpareto.training.execution.allocator import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    subnets = draw_subnets(space, subject.fitness, bands, options.subnets, options.seed)
    if options.fit and not options.learns:
        check_enough(np.array([subnet.band for subnet in subnets]), options.held_out)
    region = Region(space, subject.fitness, macs)
    # Whatever cannot be drawn is refused before anything is measured.
    first = _first(options, subject, region, subnets) if options.learns else []
    with progress_display("reading the run"):
        run = open_simulated(Path(folder), space, options.checkpoint, options.data.root, test=options.test)
    measurer = Measurer(run, evaluator_of(run, options.images))
    drawn = {"seed": options.seed, "fitness": settings_to_mapping(subject.fitness)}
    # Reading the images had a bar of its own.
    of_bands = {"subnets": options.subnets, "bands": bands, **drawn}
    readings = measurer.readings(options.folder / SUBNETS, of_bands, subnets)
    judged = sample_of(space, [subnet.architecture for subnet in subnets], readings, bands)

    def measure(number: int, chosen: Sequence[Subnet]) -> list[Reading]:
        path = options.folder / (FOUND.format(number) if number else DESIGN)
        return measurer.readings(path, {"fit_subnets": options.fit_subnets, "macs": macs, **drawn}, chosen)

    if options.learns:
        # Before anything is said of the others; whoever learns finds them measured.
        measure(0, first)

    def learn(start: FitnessSettings) -> tuple[Sample, Learned]:
        excluded = {subnet.architecture for subnet in subnets}
        with progress_display("fitting terms") as listener:
            return learn_in_rounds(region, first, options.fit_subnets, excluded, start, measure, options.seed, listener)

    return FittingData(judged, learn if options.learns else None, measurer.accuracies)


def _first(options: RankingOptions, subject: SearchTarget, region: Region, judged: Sequence[Subnet]) -> list[Subnet]:
    """Return the subnets that are learned from before any search, none of which is among the judging ones."""
    excluded = {subnet.architecture for subnet in judged}
    entries = [entry.architecture for entry in subject.known]
    return first_subnets(region, entries, options.fit_subnets, excluded, np.random.default_rng([options.seed, 1]))
