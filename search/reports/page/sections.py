"""Sections of a search's page: the figures of a report with their names and their order."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedpareto.search.reports.page import figures as form
from fedpareto.search.reports.page.figures import Figure, Form, find_figure
from fedpareto.supernet.common.formats.units import format_bytes, format_quantity

#: Name, path and form of a figure.
SectionRow = tuple[str, str, Form]

_SPLITS = ("validation", "test")

#: Classes whose recall is listed, at most.
_WORST = 20

_VALIDATION, _TEST = "validation_accuracy", "test_accuracy"


def _measures(split: str) -> Sequence[SectionRow]:
    """Return the rows of what else is known of a split."""
    rows = (
        ("low end of the 95 % interval", f"{split}_interval.low", form.share),
        ("high end", f"{split}_interval.high", form.share),
        ("images", f"{split}_interval.images", form.number),
        ("balanced accuracy", f"{split}_measures.balanced", form.share),
        ("macro F1", f"{split}_measures.macro_f1", form.share),
        ("top-5 accuracy", f"{split}_measures.top5", form.share),
        ("share of the most frequent class", f"{split}_measures.majority", form.share),
        ("classes named", f"{split}_measures.named", form.number),
        ("loss", f"{split}_measures.loss", form.number),
        ("calibration error", f"{split}_measures.ece", form.share),
        ("remark", f"{split}_remark", form.number),
    )
    return tuple((f"{split}: {name}", key, how) for name, key, how in rows)


#: Costs that may be limited, by their names in the report.
_COSTS: Mapping[str, tuple[str, Form]] = {
    "macs": ("MACs of one image", form.number),
    "params": ("parameters", form.number),
    "latency": ("latency", form.milliseconds),
    "size": ("weights file", form.size),
    "memory": ("feature maps in memory", form.size),
}

#: The figures at the top.
_HIGHLIGHTS: Sequence[SectionRow] = (
    *((name, key, how) for key, (name, how) in _COSTS.items()),
    ("fitness", "fitness", form.score),
    ("validation accuracy", _VALIDATION, form.share),
    ("test accuracy", _TEST, form.share),
)

#: Sections that list figures under their names.
_LISTS: Mapping[str, Sequence[SectionRow]] = {
    "Accuracy": (
        ("validation images", _VALIDATION, form.share),
        *_measures("validation"),
        ("test images", _TEST, form.share),
        *_measures("test"),
        ("mean over the clients that measured it", "validation_clients.mean", form.share),
        ("worst tenth of them", "validation_clients.worst_decile", form.share),
        ("their standard deviation", "validation_clients.deviation", form.share),
    ),
    "Next better network": (
        ("MACs of one image", "next_better.macs", form.number),
        ("parameters", "next_better.params", form.number),
        ("fitness", "next_better.fitness", form.score),
        ("more fitness than the choice", "next_better.gap", form.score),
    ),
    "Calibration": (
        ("method", "calibration.method", form.number),
        ("clients", "calibration.clients", form.number),
        ("batches", "calibration.batches", form.number),
        ("images", "calibration.images", form.number),
    ),
    "Privacy": (
        ("guarantee", "privacy.words", form.number),
        ("network covered", "privacy.covered", form.number),
    ),
    "Fine-tuning": (
        ("epochs", "finetune.epochs", form.number),
        ("clients", "finetune.clients", form.number),
        ("validation accuracy before", f"finetune.before.{_VALIDATION}", form.share),
        ("validation accuracy after", f"finetune.after.{_VALIDATION}", form.share),
        ("test accuracy before", f"finetune.before.{_TEST}", form.share),
        ("test accuracy after", f"finetune.after.{_TEST}", form.share),
    ),
    "Where it comes from": (
        ("search space", "space", form.number),
        ("run", "run", form.number),
        ("checkpoint", "checkpoint", form.number),
        ("round", "round", form.number),
        ("written to", "output", form.number),
        ("solver", "solver", form.number),
        ("certified", "certified", form.number),
        ("seconds of search", "search_seconds", form.number),
    ),
    "Export": (
        ("format", "export.format", form.number),
        ("precision", "export.precision", form.number),
        ("file", "export.file", form.number),
        ("size of the file", "export.file_bytes", form.size),
        ("largest error of an output", "export.max_abs_error", form.number),
        ("same class as the network", "export.top1_agreement", form.share),
        ("images compared", "export.images", form.number),
        ("validation accuracy of the file", f"export.{_VALIDATION}", form.share),
        ("validation accuracy in fp32", f"export.fp32_{_VALIDATION}", form.share),
        ("images read from files", "export.files.images", form.number),
        ("accuracy on those", "export.files.accuracy", form.share),
        ("of the network in fp32", "export.files.fp32_accuracy", form.share),
        ("same class on those", "export.files.top1_agreement", form.share),
        ("temperature of the logits", "export.temperature.value", form.number),
        ("divided by it in the file", "export.temperature.applied", form.number),
        ("calibration error without it", "export.temperature.error_before", form.share),
        ("calibration error with it", "export.temperature.error_after", form.share),
        ("latency, median", "export.latency.ms", form.milliseconds),
        ("latency, low", "export.latency.low", form.milliseconds),
        ("latency, high", "export.latency.high", form.milliseconds),
        ("latency predicted by the table", "export.predicted_ms", form.milliseconds),
        ("error of the prediction", "export.prediction_error", form.deviation),
        ("runs timed", "export.latency.runs", form.number),
        ("runtime", "export.latency.runtime", form.number),
        ("threads", "export.latency.threads", form.number),
        ("images at a time", "export.latency.batch", form.number),
        ("machine", "export.latency.machine", form.number),
    ),
    "Latency table": (
        ("file", "latency_table.file", form.number),
        ("machine", "latency_table.machine", form.number),
        ("runtime", "latency_table.runtime", form.number),
        ("threads", "latency_table.threads", form.number),
        ("images at a time", "latency_table.batch", form.number),
        ("networks it was checked with", "latency_table.validation.networks", form.number),
        ("mean absolute error in percent", "latency_table.validation.mean_absolute_percentage_error", form.percent),
        ("rank correlation", "latency_table.validation.rank_correlation", form.number),
    ),
}


@dataclasses.dataclass(frozen=True)
class Listed:
    """A section that lists figures under their names."""

    title: str
    rows: Sequence[tuple[str, Figure]]

    @property
    def id(self) -> str:
        """Anchor of the section."""
        return self.title.lower().replace(" ", "-")


@dataclasses.dataclass(frozen=True)
class Limited:
    """A cost with its limit and what is left of it, each None where the report has none."""

    name: str
    value: Figure | None
    limit: Figure | None
    slack: Figure | None


def highlights(report: Mapping[str, Any]) -> Sequence[tuple[str, Figure]]:
    """Return the figures that matter most under their names."""
    return _found(report, _HIGHLIGHTS)


def limited(report: Mapping[str, Any]) -> Sequence[Limited]:
    """Return the costs of the architecture and its fitness beside their limits."""
    others = {name: (name, form.number) for name in report["limits"] if name not in _COSTS and name != "min_fitness"}
    rows = []
    for key, (name, how) in {**_COSTS, **others}.items():
        value, limit, slack = (find_figure(report, path, how) for path in (key, f"limits.{key}", f"slack.{key}"))
        if value or limit:
            rows.append(Limited(name, value, limit, slack))
    if "memory" not in report:
        peak = find_figure(report, "activation_bytes", form.size)
        rows.append(Limited("feature maps in memory, fp32", peak, None, None))
    most = find_figure(report, "max_effectiveness", form.number)
    rows.append(Limited("effectiveness ρ", find_figure(report, "rho", form.number), most, None))
    least = find_figure(report, "limits.min_fitness", lambda value: f"at least {form.score(value)}")
    rows.append(Limited("fitness", find_figure(report, "fitness", form.score), least, None))
    return rows


def lists(report: Mapping[str, Any]) -> Sequence[Listed]:
    """Return the sections that list figures, of those the report has."""
    sections = [Listed(title, _found(report, rows)) for title, rows in _LISTS.items()]
    sections[1:1] = [Listed(f"Recall in {split}", _recalls(report, split)) for split in _SPLITS]
    return [section for section in sections if section.rows]


def _recalls(report: Mapping[str, Any], split: str) -> Sequence[tuple[str, Figure]]:
    """Return the classes that are recognised least, the least first, with the shares of images that are recognised."""
    recalls: Mapping[str, float | None] = report.get(f"{split}_measures", {}).get("recall", {})
    known = sorted((value, name) for name, value in recalls.items() if value is not None)
    key = f"{split}_measures.recall"
    return [(name, Figure(f"{key}.{name}", json.dumps(value), form.share(value))) for value, name in known[:_WORST]]


def headline(report: Mapping[str, Any]) -> str:
    """Return the headline: the architecture chosen, and its limits."""
    limits = {name: value for name, value in report["limits"].items() if value is not None}
    least = limits.pop("min_fitness", None)
    what = "Fittest subnet" if least is None else "Smallest subnet"
    reaching = "" if least is None else f" with a fitness of at least {least:g}"
    *words, last = [_limit(name, value) for name, value in limits.items()] or [""]
    within = " within " + " and ".join(filter(None, (", ".join(words), last))) if last else ""
    return f"{what} of {report['space']}{reaching}{within}"


def architecture_text(architecture: Mapping[str, Any]) -> str:
    """Return the JSON of an architecture, one stage a line."""
    start = json.dumps({name: value for name, value in architecture.items() if name != "stages"})
    stages = ",\n  ".join(json.dumps(stage) for stage in architecture["stages"])
    return f'{start[:-1]}, "stages": [\n  {stages}\n]}}'


def _limit(name: str, value: float) -> str:
    if name == "macs":
        return f"{format_quantity(value)} MACs"
    if name == "params":
        return f"{format_quantity(value)} parameters"
    if name == "latency":
        return f"{value:.6g} ms"
    stored = {"size": "weights", "memory": "feature maps"}
    return f"{format_bytes(value)} of {stored[name]}" if name in stored else f"{value:g} {name}"


def _found(report: Mapping[str, Any], rows: Sequence[SectionRow]) -> Sequence[tuple[str, Figure]]:
    figures = [(name, find_figure(report, key, how)) for name, key, how in rows]
    return [(name, figure) for name, figure in figures if figure is not None]
