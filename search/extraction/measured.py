"""Measures of an extracted subnet: what its report tells of them, and its confusion matrix as a table and a picture."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedpareto.cache.figures import drawn, save, words
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.formats.accuracies import format_accuracy, wilson_interval
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.evaluation.measures import PredictionCounts, doubts

#: Classes beyond which a picture has no room for their names and the numbers of images.
_NAMED = 40


def measured_fields(
    split: str, accuracy: float, images: int | None, counts: PredictionCounts | None, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Fields of a report about a split: its accuracy, and as far as they are known its interval and measures."""
    fields: dict[str, Any] = {f"{split}_accuracy": accuracy}
    if images is not None:
        low, high = wilson_interval(accuracy, images)
        fields[f"{split}_interval"] = {"images": images, "low": low, "high": high}
    if counts is not None:
        measures = counts.measures()
        told = dataclasses.asdict(measures)
        told["recall"] = dict(zip(classes, measures.recall, strict=True))
        fields[f"{split}_measures"] = {name: value for name, value in told.items() if value is not None}
        remark = doubts(accuracy, measures)
        if remark is not None:
            fields[f"{split}_remark"] = remark
    return fields


def probe_fields(split: str, probe: Probe) -> dict[str, Any]:
    """Fields of a report about images that clients measured a subnet on."""
    fields = measured_fields(split, probe.accuracy, probe.images, None)
    return fields if probe.clients is None else {**fields, f"{split}_clients": dataclasses.asdict(probe.clients)}


def confusion_names(split: str) -> tuple[str, str]:
    """Names of the files of a split's confusion matrix, a table and a picture."""
    stem = "confusion" if split == "validation" else f"confusion-{split}"
    return f"{stem}.csv", f"{stem}.png"


def write_confusion(folder: Path, split: str, counts: PredictionCounts, classes: Sequence[str]) -> tuple[str, str]:
    """Write a split's confusion matrix into a folder; return the names of its two files.

    The table has a row for every class and a column for every class that is named, in numbers of images, and the
    class's recall. The picture shows the shares of each row.

    Raises:
        UserError: a file cannot be written.
    """
    table, picture = confusion_names(split)
    write_text(folder / table, _csv(counts, classes))
    _draw(folder / picture, counts, classes, f"{split} accuracy {format_accuracy(counts.accuracy, counts.images)}")
    return table, picture


def _csv(counts: PredictionCounts, classes: Sequence[str]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["class", *classes, "recall"])
    for name, row, recall in zip(classes, counts.confusion.tolist(), counts.recall.tolist(), strict=True):
        writer.writerow([name, *row, "" if recall != recall else f"{recall:.6g}"])  # noqa: PLR0124 - NaN
    return written.getvalue()


def _draw(path: Path, counts: PredictionCounts, classes: Sequence[str], title: str) -> None:
    confusion = counts.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = max(4.0, min(14.0, 1.8 + 0.42 * len(classes)))
    with drawn(side + 1, side) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="share of the class's images")
        axes.set_xlabel("class that is named")
        axes.set_ylabel("class of the image")
        axes.set_title(title)
        if len(classes) <= _NAMED:
            _name_cells(axes, confusion, shares, [words(name) for name in classes])
        save(figure, path)


def _name_cells(axes: Any, confusion: IntArray, shares: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for (row, column), images in np.ndenumerate(confusion):
        if images:
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{images}", ha="center", va="center", size="x-small", color=ink)
