"""Measurement of a trained run's subnets: each is calibrated and evaluated on validation images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from fedpareto.search.extraction.opened_run import OpenedRun, opened_run
from fedpareto.search.ranking.measuring.accuracies import AccuracyLog, Reading
from fedpareto.search.ranking.measuring.bands import Subnet
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener, progress_display
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.execution.out_of_memory import out_of_memory
from fedpareto.training.randomness import torch_stream
from fedpareto.training.runs.folder import read_run_config


def open_simulated(
    folder: Path, space: SearchSpace, which: Literal["best", "newest"], root: str | None = None, *, test: bool = False
) -> OpenedRun:
    """Return a run whose images are on this machine, in ``root`` if they have moved; test images are read if asked for.

    Raises:
        UserError: they are with clients, missing or changed, or the run has no whole checkpoint.
    """
    if read_run_config(folder).engine == "flower":
        raise UserError(f"the images of {folder} are with its clients; subnets are measured where the images are")
    return opened_run(folder, space, which, None, test=test, root=root)


def evaluator_of(run: OpenedRun, images: int | None) -> Evaluator:
    """Return the run's evaluator on all its validation images, or on a fixed draw of that many.

    Raises:
        UserError: there are not so many.
    """
    if not isinstance(run.evaluator, Evaluator):
        raise TypeError("a simulated run evaluates on its own images")
    held_out = run.evaluator.held_out
    if images is None:
        return run.evaluator
    if images > len(held_out):
        raise UserError(
            f"{option('images')} is {images:,}; {run.folder} holds out {counted(len(held_out), 'validation image')}"
        )
    order = torch.randperm(len(held_out), generator=torch_stream(run.config.seed, "ranking"))
    return dataclasses.replace(run.evaluator, held_out=held_out.subset(order[:images].sort().values))


@dataclasses.dataclass(frozen=True)
class Measurer:
    """A run whose subnets are measured, and the images they are measured on."""

    run: OpenedRun
    evaluator: Evaluator

    def readings(self, path: Path, drawn: Mapping[str, Any], subnets: Sequence[Subnet]) -> list[Reading]:
        """Return the accuracies of subnets, measuring those that the file ``path`` lacks; ``drawn`` describes the draw.

        Raises:
            UserError: the file belongs to other subnets, or a network does not fit into memory.
        """
        space = self.run.space
        of_space = {"space": space.name, "fingerprint": space.fingerprint}
        journal = AccuracyLog(path, {**of_space, **drawn, **conditions(self.run, self.evaluator)}, subnets)
        with progress_display("evaluating subnets") as listener:
            measure(self.run, self.evaluator, journal, listener)
        return journal.readings

    def accuracies(self, architecture: Architecture) -> dict[str, float]:
        """Return the accuracy of one subnet on the validation images, and on the test images if they were opened."""
        network = self.evaluator.subnet(self.run.checkpoint.models.supernet, architecture)
        images = {"validation": self.evaluator.held_out, "test": self.run.test}
        return {
            name: dataclasses.replace(self.evaluator, held_out=each).accuracy(network, architecture.resolution)
            for name, each in images.items()
            if each is not None
        }


def conditions(run: OpenedRun, evaluator: Evaluator) -> dict[str, Any]:
    """Return the conditions of the measurement of subnets, as JSON values."""
    return {
        "checkpoint": run.checkpoint_path.name,
        "images": len(evaluator.held_out),
        "calibration_images": len(evaluator.calibration),
    }


def measure(run: OpenedRun, evaluator: Evaluator, journal: AccuracyLog, listener: ProgressListener) -> None:
    """Measure the subnets a journal lacks.

    Raises:
        UserError: a network does not fit into memory, or the journal cannot be written.
    """
    missing = journal.missing
    total, halves = len(journal.readings) + len(missing), _halved(evaluator)
    try:
        for subnet in missing:
            listener.report("evaluating subnets", len(journal.readings), total)
            journal.append(_reading(run, halves, subnet.architecture))
    except KeyboardInterrupt:
        listener.remark(f"measured {len(journal.readings)} of {counted(total, 'subnet')}; the same command goes on")
        raise
    listener.report("evaluating subnets", total, total)


def _halved(evaluator: Evaluator) -> tuple[Evaluator, Evaluator]:
    """Return evaluators on every other image, and on those between: what they differ by is noise."""
    positions = torch.arange(len(evaluator.held_out))
    even, odd = (evaluator.held_out.subset(positions[first::2]) for first in (0, 1))
    return dataclasses.replace(evaluator, held_out=even), dataclasses.replace(evaluator, held_out=odd)


def _reading(run: OpenedRun, halves: tuple[Evaluator, Evaluator], architecture: Architecture) -> Reading:
    evaluator, images = halves[0], halves[0].held_out.images
    with out_of_memory(architecture, evaluator.batch_size, images.device):
        network = evaluator.subnet(run.checkpoint.models.supernet, architecture)
        found = [half.accuracy(network, architecture.resolution) if len(half.held_out) else 0.0 for half in halves]
    sizes = [len(half.held_out) for half in halves]
    right = sum(round(share * size) for share, size in zip(found, sizes, strict=True))
    return Reading(right / sum(sizes), (found[0], found[1]) if all(sizes) else None)
