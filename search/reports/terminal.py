"""Terminal report of a search: one JSON object, or a table and a sentence for people."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedpareto.cache.costs.cost import COST_NAMES
from fedpareto.search.reports.page.figures import Form, milliseconds, number, score, share, size
from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted

#: Costs that may be limited, with their names for people.
COSTS = {**COST_NAMES, "size": "file size", "memory": "feature maps", "latency": "latency"}

#: Value in a report for a subnet without statistics that could be calibrated.
NOT_NEEDED = "not needed"

#: Value in a report for a subnet that was calibrated on the server's own validation images.
VALIDATION = "validation"

_FORMS: Mapping[str, Form] = {
    "size": size,
    "memory": size,
    "latency": milliseconds,
    "fitness": score,
    "validation_accuracy": share,
    "test_accuracy": share,
}


def figure(key: str, value: float | None) -> str:
    """Return a figure of a report as people read it; empty without a value."""
    return "" if value is None else _FORMS.get(key, number)(value)


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    what = "smallest subnet so fit" if "min_fitness" in report["limits"] else "fittest subnet"
    title = f"the {what} of {report['space']} within the limits"
    title = f"a subnet of {report['space']}" if report["solver"] == "given" else title
    print_table(title, ("", "value", "limit", "slack"), _rows(report))
    say(standing(report))
    for line in (_tuned(report), _calibrated(report), _covered(report), *_exported(report)):
        if line is not None:
            say(line)
    say(json.dumps(report["architecture"]))


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for cost, name in COSTS.items():
        if cost in report:
            row = (report[cost], report["limits"].get(cost), report["slack"].get(cost))
            yield name, *(figure(cost, value) for value in row)
    yield "fitness", f"{report['fitness']:.3f}", f"{report['limits'].get('min_fitness', '')}", ""
    for split in ("validation", "test"):
        if f"{split}_accuracy" in report:
            yield f"{split} accuracy", figure(f"{split}_accuracy", report[f"{split}_accuracy"]), "", ""


def _tuned(report: Mapping[str, Any]) -> str | None:
    if "finetune" not in report:
        return None
    tuned = report["finetune"]
    accuracies = ", ".join(
        f"{name.replace('_', ' ')} {before:.2%} before, {tuned['after'][name]:.2%} after"
        for name, before in tuned["before"].items()
    )
    epochs, clients = counted(tuned["epochs"], "epoch"), counted(tuned["clients"], "client")
    return f"fine-tuned for {epochs} on {clients}: {accuracies}"


def _calibrated(report: Mapping[str, Any]) -> str | None:
    if "calibration" not in report:
        return None
    calibration = report["calibration"]
    if calibration["method"] == "none":
        return "not calibrated"
    if calibration["method"] == NOT_NEEDED:
        return "without BatchNorm there is nothing to calibrate"
    if calibration["method"] == VALIDATION:
        return f"calibrated on {counted(calibration['images'], 'validation image')}, which belong to no client"
    where = "on the clients" if calibration["method"] == "federated" else "over a draw of the images"
    return (
        f"calibrated {where}: {counted(calibration['batches'], 'batch')}, {counted(calibration['images'], 'image')} "
        f"of {counted(calibration['clients'], 'client')}"
    )


def _covered(report: Mapping[str, Any]) -> str | None:
    return None if "privacy" not in report else str(report["privacy"]["words"])


def _exported(report: Mapping[str, Any]) -> Iterator[str]:
    if "export" not in report:
        return
    export = report["export"]
    yield (
        f"{export['file']}: {format_bytes(export['file_bytes'])}, {export['precision']}; largest error of an output "
        f"{export['max_abs_error']:.2g}; the same class as the network on {export['top1_agreement']:.2%} of "
        f"{counted(export['images'], 'validation image')}; accuracy {export['validation_accuracy']:.2%} "
        f"({export['fp32_validation_accuracy']:.2%} before the export)"
    )
    files = export["files"]
    yield (
        f"{files['images']:,} of them {'read from their files' if files['own'] else 'written to files and read'} as a "
        f"device does: the same pixels as in training; accuracy {files['accuracy']:.2%} "
        f"({files['fp32_accuracy']:.2%} before the export)"
    )
    latency = export["latency"]
    predicted = ""
    if "predicted_ms" in export:
        predicted = f"; the table says {export['predicted_ms']:.3g} ms ({export['prediction_error']:+.1%})"
    yield (
        f"{latency['ms']:.3g} ms at batch {latency['batch']} on {counted(latency['threads'], 'thread')} of "
        f"{latency['machine']}, {latency['runtime']} "
        f"({latency['low']:.3g} to {latency['high']:.3g} ms){predicted}"
    )


def standing(report: Mapping[str, Any]) -> str:
    """Return a sentence about the quality of the answer: certified, or only the best found."""
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
    takes = f"{counted(better['macs'], 'MAC')} and {counted(better['params'], 'parameter')}"
    return f"certified: {what}; the next better one takes {takes} for {better['gap']:.3f} more"
