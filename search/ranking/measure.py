"""The accuracy of a trained run's subnets on validation images, each calibrated first."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch

from cache.entries import make_entry
from cache.progress import Listener
from search.ranking.accuracies import Journal
from search.ranking.sampling import Subnet
from search.trained import TrainedRun, open_run
from supernet.errors import UserError
from supernet.space import SearchSpace
from supernet.words import counted
from training.evaluation import Evaluator
from training.randomness import torch_stream
from training.run_folder import read_run_config


def open_simulated(
    folder: Path, space: SearchSpace, which: Literal["best", "newest"], root: str | None = None
) -> TrainedRun:
    """Return a run whose images are on this machine, in ``root`` if they have moved; the test images stay unread.

    Raises:
        UserError: they are with clients, missing or changed, or the run has no whole checkpoint.
    """
    if read_run_config(folder).engine == "flower":
        raise UserError(f"the images of {folder} are with its clients; subnets are measured where the images are")
    return open_run(folder, space, which, None, test=False, root=root)


def evaluator_of(run: TrainedRun, images: int | None) -> Evaluator:
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
        raise UserError(f"--images is {images:,}; {run.folder} holds out {counted(len(held_out), 'validation image')}")
    order = torch.randperm(len(held_out), generator=torch_stream(run.config.seed, "ranking"))
    return dataclasses.replace(run.evaluator, held_out=held_out.subset(order[:images].sort().values))


def conditions(run: TrainedRun, evaluator: Evaluator) -> dict[str, Any]:
    """Return what subnets are measured with, as JSON values."""
    return {
        "checkpoint": run.checkpoint_path.name,
        "images": len(evaluator.held_out),
        "calibration_images": len(evaluator.calibration),
    }


def measure(run: TrainedRun, evaluator: Evaluator, journal: Journal, listener: Listener) -> None:
    """Measure the subnets a journal lacks.

    Raises:
        UserError: a network does not fit into memory, or the journal cannot be written.
    """
    missing = journal.missing
    total = len(journal.accuracies) + len(missing)
    try:
        for subnet in missing:
            listener.report("evaluating subnets", len(journal.accuracies), total)
            journal.append(_accuracy(run, evaluator, subnet))
    except KeyboardInterrupt:
        listener.remark(f"measured {len(journal.accuracies)} of {counted(total, 'subnet')}; the same command goes on")
        raise
    listener.report("evaluating subnets", total, total)


def _accuracy(run: TrainedRun, evaluator: Evaluator, subnet: Subnet) -> float:
    entry = make_entry(run.space, subnet.architecture)
    (probe,) = evaluator.probe(run.checkpoint.tensors, [entry]).probes
    return probe.accuracy
