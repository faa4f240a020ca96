"""Checks of a site's images: how many of each class are found, and which cannot be read."""

import collections
import concurrent.futures
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fedpareto.supernet.common.machine import available_cores
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.folders import class_files
from fedpareto.training.data.files.preparation import PictureError, Preparation, read_picture
from fedpareto.training.data.run_images import used_images
from fedpareto.training.engines.flower.own_images import NodeConfig
from fedpareto.training.preflight.findings import Finding

#: Most images that are decoded; of more, so many are, spread over all.
MOST_READ = 5000

#: Classes that are named with their number of images.
_NAMED = 8


class FoundImages(NamedTuple):
    """Images of a site: their number, their classes, and the findings about them."""

    number: int
    classes: int
    findings: Sequence[Finding]


def folder_images(folder: Path, preparation: Preparation, batch: int) -> FoundImages:
    """Check a folder of ``CLASS/…`` whose images are all the client's own; most of them are decoded.

    Raises:
        DataError: there are none, or the folder cannot be read.
    """
    files = class_files(folder)
    by_class = collections.Counter(files.classes[label] for label in files.labels)
    findings = [_counts(by_class, len(files.paths), batch)]
    skipped = files.skipped.words(folder)
    if skipped is not None:
        findings.append(Finding("files skipped", skipped, "warning", "look whether images are among them"))
    findings.append(_readable(files.paths, preparation))
    return FoundImages(len(files.paths), len(files.classes), findings)


def partition_images(node: NodeConfig, name: str, batch: int) -> FoundImages:
    """Check the data set of which the client has a part; the part itself is settled by a run.

    Raises:
        UserError: the data set is missing or cannot be read.
    """
    remarks: list[str] = []
    config = RunConfig(engine="flower", data=DataConfig(name=name, root=node.root))
    listing = used_images(config, ProgressListener(remark=remarks.append))
    by_class = collections.Counter(listing.classes[label] for label in listing.labels.tolist())
    findings = [_counts(by_class, len(listing), batch)]
    findings += [
        Finding("files skipped", remark, "warning", "look whether images are among them") for remark in remarks
    ]
    return FoundImages(len(listing), len(listing.classes), findings)


def _counts(by_class: Mapping[str, int], count: int, batch: int) -> Finding:
    parts = [f"{name} {number:,}" for name, number in list(by_class.items())[:_NAMED]]
    rest = len(by_class) - len(parts)
    found = f"{counted(count, 'image')} of {counted(len(by_class), 'class')}: {', '.join(parts)}"
    found += f" and {rest} more" if rest else ""
    if count < batch:
        return Finding("images", f"{found}; a step takes {batch}", "failed", "add images, or agree on a smaller batch")
    if len(by_class) < 2:
        return Finding("images", found, "warning", "check that each class has a folder of its own")
    return Finding("images", found)


def _readable(paths: Sequence[Path], preparation: Preparation) -> Finding:
    chosen = paths if len(paths) <= MOST_READ else [paths[i * len(paths) // MOST_READ] for i in range(MOST_READ)]
    read = "all" if len(chosen) == len(paths) else f"{len(chosen):,} of {len(paths):,}, spread over all"
    with concurrent.futures.ThreadPoolExecutor(available_cores()) as pool:
        reasons = list(pool.map(lambda path: _reason(path, preparation), chosen))
    bad = [(path, reason) for path, reason in zip(chosen, reasons, strict=True) if reason is not None]
    if not bad:
        return Finding("images read", f"{read} can be decoded")
    (path, reason), number = bad[0], len(bad)
    found = f"{counted(number, 'image')} cannot be decoded, such as {path} ({reason})"
    return Finding("images read", found, "failed", "mend or remove these files; a node would refuse to train with them")


def _reason(path: Path, preparation: Preparation) -> str | None:
    try:
        read_picture(path, preparation)
    except PictureError as error:
        return " ".join(str(error).split())[:120]
    return None
