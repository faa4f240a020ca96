"""Terminal report of a search: one JSON object, or a table and a sentence for people."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedpareto.cache.costs.cost import COST_NAMES
from fedpareto.search.reports.page.figures import Form, milliseconds, number, score, share, size
from fedpareto.supernet.common.formats.accuracies import format_accuracy
from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted

#: Costs that may be limited, with their names for people.
COSTS = {**COST_NAMES, "size": "file size", "memory": "feature maps", "latency": "latency"}

#: Value in a report for a subnet without statistics that could be calibrated.
NOT_NEEDED = "not needed"

#: Value in a report for a subnet that was calibrated on the server's own validation images.
VALIDATION = "validation"

_SPLITS = ("validation", "test")

#: Measures that are printed, with their names for people.
_MEASURES = {
    "balanced": "balanced accuracy",
    "macro_f1": "macro F1",
    "top5": "top-5 accuracy",
    "ece": "calibration error",
}

_FORMS: Mapping[str, Form] = {
    "size": size,
    "memory": size,
    "latency": milliseconds,
    "fitness": score,
}


def figure(key: str, value: float | None) -> str:
    """Return a figure of a report as people read it; empty without a value."""
    return "" if value is None else _FORMS.get(key, number)(value)


def accuracy_text(report: Mapping[str, Any], split: str) -> str:
    """Return a split's accuracy in a report with its interval, as people read it; empty without one."""
    if f"{split}_accuracy" not in report:
        return ""
    images = report.get(f"{split}_interval", {}).get("images")
    return format_accuracy(report[f"{split}_accuracy"], images, digits=2)


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    what = "smallest subnet so fit" if "min_fitness" in report["limits"] else "fittest subnet"
    title = f"the {what} of {report['space']} within the limits"
    title = f"a subnet of {report['space']}" if report["solver"] == "given" else title
    print_table(title, ("", "value", "limit", "slack"), _rows(report))
    say(standing(report))
    doubted = [f"in {split} {report[f'{split}_remark']}" for split in _SPLITS if f"{split}_remark" in report]
    for line in (*doubted, _tuned(report), _calibrated(report), _covered(report), *_exported(report)):
        if line is not None:
            say(line)
    say(json.dumps(report["architecture"]))


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for cost, name in COSTS.items():
        if cost in report:
            row = (report[cost], report["limits"].get(cost), report["slack"].get(cost))
            yield name, *(figure(cost, value) for value in row)
    yield "fitness", f"{report['fitness']:.3f}", f"{report['limits'].get('min_fitness', '')}", ""
    for split in _SPLITS:
        if f"{split}_accuracy" in report:
            yield f"{split} accuracy", accuracy_text(report, split), "", ""
            for key, name in _MEASURES.items():
                if key in report.get(f"{split}_measures", {}):
                    yield f"{split} {name}", share(report[f"{split}_measures"][key]), "", ""


def _tuned(report: Mapping[str, Any]) -> str | None:
    if "finetune" not in report:
        return None
    tuned = report["finetune"]
    accuracies = ", ".join(
        f"{split} accuracy {_tuned_accuracy(report, 'before', split)} before, "
        f"{_tuned_accuracy(report, 'after', split)} after"
        for split in _SPLITS
        if f"{split}_accuracy" in tuned["before"]
    )
    epochs, clients = counted(tuned["epochs"], "epoch"), counted(tuned["clients"], "client")
    return f"fine-tuned for {epochs} on {clients}: {accuracies}"


def _tuned_accuracy(report: Mapping[str, Any], when: str, split: str) -> str:
    return accuracy_text({**report, **report["finetune"][when]}, split)


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
        f"{counted(export['images'], 'validation image')}; accuracy "
        f"{format_accuracy(export['validation_accuracy'], export['images'], digits=2)}, and "
        f"{export['fp32_validation_accuracy']:.2%} before the export"
    )
    files = export["files"]
    yield (
        f"{files['images']:,} of them {'read from their files' if files['own'] else 'written to files and read'} as a "
        f"device does: the same pixels as in training; accuracy "
        f"{format_accuracy(files['accuracy'], files['images'], digits=2)}, and {files['fp32_accuracy']:.2%} before the "
        "export"
    )
    if "temperature" in export:
        yield _cooled(export["temperature"])
    latency = export["latency"]
    predicted = ""
    if "predicted_ms" in export:
        predicted = f"; the table says {export['predicted_ms']:.3g} ms ({export['prediction_error']:+.1%})"
    yield (
        f"{latency['ms']:.3g} ms at batch {latency['batch']} on {counted(latency['threads'], 'thread')} of "
        f"{latency['machine']}, {latency['runtime']} "
        f"({latency['low']:.3g} to {latency['high']:.3g} ms){predicted}"
    )


def _cooled(temperature: Mapping[str, Any]) -> str:
    where = "divided by it in the file" if temperature["applied"] else "to be divided by it for confidences"
    return (
        f"logits are {where}: temperature {temperature['value']:.3g}, by which the calibration error on the validation "
        f"images goes from {temperature['error_before']:.1%} to {temperature['error_after']:.1%}"
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
