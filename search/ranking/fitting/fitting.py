"""Workflow of ``validate-fitness --fit``: fits a fitness to measured networks, writes it, judges it and searches."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from fedpareto.search.ranking.fitting.learning import Learned, learn_terms
from fedpareto.search.ranking.fitting.weights import LeftOut, fit_weights, halves
from fedpareto.search.ranking.measuring.found import Finding, Measure, find_networks, findings_to_json, print_findings
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.search.ranking.options import RankingOptions
from fedpareto.search.ranking.report import Ranking, print_learned, print_ranking, print_weights, rank, ranking_to_json
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.terminal.console import say
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping

#: Names of the forms of the fitness.
FITTED, BEFORE = "fitted fitness", "fitness before"

#: Function that stores the report of a fit so far.
Keep = Callable[[Mapping[str, Any]], None]


class FittingData(NamedTuple):
    """Measured networks for a fit.

    Attributes:
        judged: networks that a fitness is judged by.
        learn: learns terms, beginning with a fitness, from other networks of a run, and returns these networks as well;
            None where a part of the judged networks is learned from.
        measure: measures further networks; None without a run.
    """

    judged: Sample
    learn: Callable[[FitnessSettings], tuple[Sample, Learned]] | None = None
    measure: Measure | None = None


class Fitted(NamedTuple):
    """A fitted fitness.

    Attributes:
        settings: its weights.
        ahead: its τ within bands less that of the fitness before, on networks held out.
    """

    settings: FitnessSettings
    ahead: float


def fit_fitness(
    options: RankingOptions, measured: FittingData, before: FitnessSettings, path: Path, keep: Keep
) -> Fitted:
    """Fit a fitness, write it to ``path`` and judge it by networks held out; ``keep`` stores the report."""
    if options.learns:
        return _learned(options, measured, before, path, keep)
    return _weighed(options, measured.judged, before, path, keep)


def _weighed(options: RankingOptions, sample: Sample, before: FitnessSettings, path: Path, keep: Keep) -> Fitted:
    """Fit weights to a part of a sample, and judge them by the rest."""
    with progress_display("fitting weights"):
        fit = fit_weights(sample, before, options.held_out, options.manner, options.seed)
    print_weights(before, fit.settings)
    held_out = sample.take(fit.held_out)
    ranking = _judged(options, held_out, before, fit.settings)
    _write(path, fit.settings, len(fit.fitted), sample.space.name)
    keep(
        {
            "settings": settings_to_mapping(fit.settings),
            "pairs": options.pairs,
            "fields": list(options.manner.fields),
            **_validated(fit.strength, fit.cross_validation),
            "fitted_networks": fit.fitted.tolist(),
            "held_out_networks": fit.held_out.tolist(),
            "held_out": ranking_to_json(held_out, ranking),
        }
    )
    return Fitted(fit.settings, _ahead(ranking))


def _learned(options: RankingOptions, measured: FittingData, before: FitnessSettings, path: Path, keep: Keep) -> Fitted:
    """Fit a term to every choice, judge them by other networks, and search with them."""
    fitted, held_out, learned = _apart(options, measured, before)
    print_learned(learned, len(fitted))
    ranking = _judged(options, held_out, before, learned.settings)
    _write(path, learned.settings, len(fitted), fitted.space.name)
    report = {
        "form": "blocks",
        "settings": settings_to_mapping(learned.settings),
        "factor": learned.factor,
        **_validated(learned.strength, learned.cross_validation),
        "fitted": len(fitted),
        "held_out": ranking_to_json(held_out, ranking),
    }
    keep(report)
    if measured.measure is not None:
        keep({**report, "found": findings_to_json(_found(options, held_out, measured.measure, before, learned))})
    return Fitted(learned.settings, _ahead(ranking))


def _apart(options: RankingOptions, measured: FittingData, before: FitnessSettings) -> tuple[Sample, Sample, Learned]:
    """Return the networks that were learned from, those to judge by, and the learned fitness."""
    if measured.learn is not None:
        fitted, learned = measured.learn(before)
        return fitted, measured.judged, learned
    out, kept = halves(measured.judged.band, options.held_out, np.random.default_rng(options.seed))
    fitted = measured.judged.take(kept)
    with progress_display("fitting terms"):
        learned = learn_terms(fitted, before, np.random.default_rng([options.seed, 0]))
    return fitted, measured.judged.take(out), learned


def _judged(options: RankingOptions, held_out: Sample, before: FitnessSettings, after: FitnessSettings) -> Ranking:
    """Print and return the rankings of networks held out by both forms of the fitness."""
    ranking = rank(held_out, after, options.seed, other=before)
    title = f"the {counted(len(held_out), 'network')} held out of the fit"
    print_ranking(held_out, ranking, title, {"fitness": FITTED, "before": BEFORE})
    return ranking


def _ahead(ranking: Ranking) -> float:
    return ranking.leads["before"].value


def _found(
    options: RankingOptions, sample: Sample, measure: Measure, before: FitnessSettings, learned: Learned
) -> list[Finding]:
    """Search with both forms of the fitness, and print the accuracies of the networks found."""
    budgets = options.searched or [int(band.most) for band in sample.bands]
    with progress_display("searching") as listener:
        found = find_networks(sample.space, {BEFORE: before, FITTED: learned.settings}, budgets, measure, listener)
    print_findings(found, FITTED, BEFORE)
    return found


def _validated(strength: float, tried: Mapping[float, LeftOut]) -> dict[str, Any]:
    return {"strength": strength, "cross_validation": {f"{each:g}": found._asdict() for each, found in tried.items()}}


def _write(path: Path, settings: FitnessSettings, networks: int, space: str) -> None:
    origin = f"# Fitted to the accuracies of {counted(networks, 'network')} of {space}.\n"
    text = yaml.safe_dump(settings_to_mapping(settings), sort_keys=False, default_flow_style=None, width=110)
    write_text(path, origin + text)
    say(f"fitted fitness: {path}")
