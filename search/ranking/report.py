"""Report of a ranking: rank correlations as JSON values, tables and sentences."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedpareto.search.ranking.fitting.learning import Learned
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.search.ranking.statistics import (
    CONFIDENCE,
    STATISTICS,
    Correlations,
    Interval,
    ceiling,
    correlation_gain,
    correlations,
    resampled,
)
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings

#: Draws with replacement that intervals are read off.
RESAMPLES = 1000

#: Names of figures and statistics for people.
_NAMES = {
    "fitness": "fitness",
    "macs": "MACs",
    "params": "parameters",
    "blocks": "blocks",
    "ceiling": "(ceiling: exact accuracies)",
}
_STATISTICS = {"kendall": "Kendall's τ", "spearman": "Spearman's ρ"}


class Ranking(NamedTuple):
    """Rank correlations of figures with accuracy in a sample.

    ``found[statistic][figure]`` are correlations. ``leads[figure]`` is Kendall's τ within bands of the fitness less
    that of another figure. Where accuracies on both halves of the images are known, Kendall's τ has one more figure,
    ``ceiling``: the τ that exact accuracies would reach.
    """

    found: Mapping[str, Mapping[str, Correlations]]
    leads: Mapping[str, Interval]


def rank(sample: Sample, settings: FitnessSettings, seed: int, other: FitnessSettings | None = None) -> Ranking:
    """Rank a sample by fitness, costs and depth; ``other`` weights are a figure of their own, ``before``."""
    figures = sample.figures(settings)
    if other is not None:
        figures = {"fitness": figures.pop("fitness"), "before": sample.figures(other)["fitness"], **figures}
    counts = resampled(sample.band, RESAMPLES, np.random.default_rng(seed))
    found = {
        name: {
            figure: correlations(statistic, column, sample.accuracy, sample.band, counts)
            for figure, column in figures.items()
        }
        for name, statistic in STATISTICS.items()
    }
    if sample.halves is not None:
        one, two = sample.halves
        limit = correlations(ceiling, one, two, sample.band, counts)
        found["kendall"] = {**found["kendall"], "ceiling": limit}
    leads = {
        figure: correlation_gain(
            STATISTICS["kendall"], figures["fitness"], column, sample.accuracy, sample.band, counts
        )
        for figure, column in figures.items()
        if figure != "fitness"
    }
    return Ranking(found, leads)


def ranking_to_json(sample: Sample, ranking: Ranking) -> dict[str, Any]:
    """Return a sample's ranking as JSON values; null for undefined ones."""
    counts = np.bincount(sample.band, minlength=len(sample.bands))
    bands = [
        {"least_macs": band.least, "most_macs": band.most, "networks": int(count)}
        for band, count in zip(sample.bands, counts, strict=True)
    ]
    return {
        "networks": len(sample),
        "bands": bands,
        "accuracy": {"least": float(sample.accuracy.min()), "most": float(sample.accuracy.max())},
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        **{
            name: {figure: _plain(dataclasses.asdict(each)) for figure, each in by_figure.items()}
            for name, by_figure in ranking.found.items()
        },
        "kendall_leads": {figure: _plain(each) for figure, each in ranking.leads.items()},
    }


def print_ranking(sample: Sample, ranking: Ranking, title: str, names: Mapping[str, str] | None = None) -> None:
    """Print a table for each statistic, and whether the fitness ranks better than the others do."""
    called = {**_NAMES, **(names or {})}
    for name, by_figure in ranking.found.items():
        columns = ["ranked by", "within bands", "overall"]
        for band, count in zip(sample.bands, np.bincount(sample.band, minlength=len(sample.bands)), strict=True):
            least, most = band.ends()
            columns.append(f"{least}\n–{most}\n({count})")
        rows = [
            (called[figure], _interval(each.within), _interval(each.overall), *(_number(b.value) for b in each.bands))
            for figure, each in by_figure.items()
        ]
        print_table(f"{_STATISTICS[name]} with accuracy, {title}", columns, rows)
    for figure, ahead in ranking.leads.items():
        say(f"within bands {called['fitness']} ranks {_verdict(ahead)} than {called[figure]}: τ {_interval(ahead)}")


def print_weights(before: FitnessSettings, after: FitnessSettings) -> None:
    """Print the fields of a fitness that were changed."""
    names = [field.name for field in dataclasses.fields(after)]
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    rows = [(name, _words(getattr(before, name)), _words(getattr(after, name))) for name in changed]
    print_table("fitness weights", ("field", "before", "fitted"), rows)


def print_learned(learned: Learned, networks: int) -> None:
    """Print the cross-validation of a learned fitness: the rank correlation at each strength of the penalty."""
    rows = [
        (f"{strength:g}", f"{found.value:.2f} ± {found.spread:.2f}", "chosen" if strength == learned.strength else "")
        for strength, found in learned.cross_validation.items()
    ]
    title = f"Kendall's τ within bands of networks left out of a fit, of {counted(networks, 'network')}"
    print_table(title, ("penalty", "τ", ""), rows)


def _verdict(ahead: Interval) -> str:
    if ahead.low > 0:
        return "better"
    if ahead.high < 0:
        return "worse"
    return "no better" if ahead.value <= 0 else "not certainly better"


def _words(value: object) -> str:
    return ", ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else f"{value}"


def _interval(found: Interval) -> str:
    return f"{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    return f"{value:z.2f}" if math.isfinite(value) else "–"


def _plain(value: Any) -> Any:
    """Return intervals as objects, with null for NaN."""
    if isinstance(value, Interval):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if math.isfinite(value) else None
