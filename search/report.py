"""What a search reports: one JSON object, or a table and a sentence for people."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from cache.additive import COST_NAMES, LimitedCost
from cache.entries import Entry
from cache.file import entry_to_json
from cache.limits import Limits
from search.page.figures import Form, milliseconds, number, score, share, size
from search.searcher import Answer
from supernet.console import print_table
from supernet.genes import encode
from supernet.space import SearchSpace
from supernet.units import format_bytes

#: What may be limited, and what people call it.
COSTS = {**COST_NAMES, "size": "file size", "memory": "feature maps", "latency": "latency"}

_FORMS: Mapping[str, Form] = {
    "size": size,
    "memory": size,
    "latency": milliseconds,
    "fitness": score,
    "validation_accuracy": share,
    "test_accuracy": share,
}


def search_report(
    space: SearchSpace, run: str | None, limits: Limits, min_fitness: float | None, answer: Answer, seconds: float
) -> dict[str, Any]:
    """Return what ``--json`` prints: the limits, the architecture with its costs, and how good it is."""
    entry, better = answer.entry, answer.next_better
    values: dict[str, float] = {bound.cost: bound.value for bound in limits.bounds()}
    genes = encode(space, entry.architecture)[None]
    extras = {extra.name: _value(extra, float(extra.of(space, genes)[0])) for extra in limits.extras}
    values |= {extra.name: _value(extra, extra.limit) for extra in limits.extras}
    costs = {"macs": entry.macs, "params": entry.params, **extras}
    return {
        "space": space.name,
        "run": run,
        "limits": values | ({} if min_fitness is None else {"min_fitness": min_fitness}),
        **entry_to_json(entry),
        **extras,
        "slack": {name: value - costs[name] for name, value in values.items()},
        "solver": answer.solver,
        "certified": answer.certified,
        "next_better": None if better is None else _better(better, entry),
        "search_seconds": round(seconds, 4),
    }


def _value(cost: LimitedCost, value: float) -> float:
    """Return a value as JSON has it: bytes are whole."""
    return int(value) if cost.unit == "B" else value


def _better(better: Entry, than: Entry) -> dict[str, Any]:
    gap = better.fitness - than.fitness
    return {"macs": better.macs, "params": better.params, "fitness": better.fitness, "gap": gap}


def figure(key: str, value: float | None) -> str:
    """Return a figure of a report as people read it; empty without a value."""
    return "" if value is None else _FORMS.get(key, number)(value)


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    what = "smallest subnet so fit" if "min_fitness" in report["limits"] else "fittest subnet"
    title = f"the {what} of {report['space']} within the limits"
    table = Table(title=f"a subnet of {report['space']}" if report["solver"] == "given" else title)
    for column in ("", "value", "limit", "slack"):
        table.add_column(column, justify="left" if not column else "right")
    for cost, name in COSTS.items():
        if cost in report:
            row = (report[cost], report["limits"].get(cost), report["slack"].get(cost))
            table.add_row(name, *(figure(cost, value) for value in row))
    table.add_row("fitness", f"{report['fitness']:.3f}", f"{report['limits'].get('min_fitness', '')}", "")
    for split in ("validation", "test"):
        if f"{split}_accuracy" in report:
            table.add_row(f"{split} accuracy", figure(f"{split}_accuracy", report[f"{split}_accuracy"]), "", "")
    print_table(table)
    print(standing(report))
    for line in (_tuned(report), _calibrated(report), *_exported(report)):
        if line is not None:
            print(line)
    print(json.dumps(report["architecture"]))


def _tuned(report: Mapping[str, Any]) -> str | None:
    if "finetune" not in report:
        return None
    tuned = report["finetune"]
    accuracies = ", ".join(
        f"{name.replace('_', ' ')} {before:.2%} before, {tuned['after'][name]:.2%} after"
        for name, before in tuned["before"].items()
    )
    epochs = f"{tuned['epochs']} epoch{'s' if tuned['epochs'] > 1 else ''}"
    return f"fine-tuned for {epochs} on {tuned['clients']} clients: {accuracies}"


def _calibrated(report: Mapping[str, Any]) -> str | None:
    if "calibration" not in report:
        return None
    calibration = report["calibration"]
    if calibration["method"] == "none":
        return "not calibrated"
    where = "on the clients" if calibration["method"] == "federated" else "over a draw of the images"
    return (
        f"calibrated {where}: {calibration['batches']} batches, {calibration['images']:,} images of "
        f"{calibration['clients']} clients"
    )


def _exported(report: Mapping[str, Any]) -> Iterator[str]:
    if "export" not in report:
        return
    export = report["export"]
    yield (
        f"{export['file']}: {format_bytes(export['file_bytes'])}, {export['precision']}; largest error of an output "
        f"{export['max_abs_error']:.2g}; the same class as the network on {export['top1_agreement']:.2%} of "
        f"{export['images']:,} validation images; accuracy {export['validation_accuracy']:.2%} "
        f"({export['fp32_validation_accuracy']:.2%} before the export)"
    )
    files = export["files"]
    yield (
        f"{files['images']:,} of them {'read from their' if files['own'] else 'written to and read from'} files as a "
        f"device does: the same pixels as in training; accuracy {files['accuracy']:.2%} "
        f"({files['fp32_accuracy']:.2%} before the export)"
    )
    latency = export["latency"]
    predicted = ""
    if "predicted_ms" in export:
        predicted = f"; the table says {export['predicted_ms']:.3g} ms ({export['prediction_error']:+.1%})"
    yield (
        f"{latency['ms']:.3g} ms at batch {latency['batch']} on {latency['threads']} "
        f"thread{'s' if latency['threads'] > 1 else ''} of {latency['machine']}, {latency['runtime']} "
        f"({latency['low']:.3g} to {latency['high']:.3g} ms){predicted}"
    )


def standing(report: Mapping[str, Any]) -> str:
    """Return how good the answer is, in one sentence."""
    if report["solver"] == "given":
        return f"given by {report['given']}, not searched"
    if not report["certified"]:
        return "found by a genetic search: good, but not certified"
    what = "no network within the limits has a higher fitness"
    if "min_fitness" in report["limits"]:
        what = "no network within the limits reaches that fitness with fewer MACs"
    better = report["next_better"]
    if better is None:
        return f"certified: {what}; no network of the space is fitter"
    return (
        f"certified: {what}; the next better one takes {better['macs']:,} MACs and {better['params']:,} parameters "
        f"for {better['gap']:.3f} more"
    )
