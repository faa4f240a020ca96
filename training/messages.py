"""Messages between server and clients: the server sends tasks, and clients answer with updates or failures."""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.networks.tensor_files import first_not_finite
from fedpareto.training.local_objective import LocalObjective, Logits, Standard
from fedpareto.training.traffic import NO_TRAFFIC, Traffic

FailureKind = Literal[
    # What a client sent cannot be merged.
    "names",
    "shape",
    "dtype",
    "non-finite",
    "examples",
    "outlier",
    "malformed",
    "size",
    # It sent nothing: its code failed, it refused, it is gone, it is late.
    "error",
    "memory",
    "refused",
    "version",
    "offline",
    "lost",
    "timeout",
]


@dataclasses.dataclass(frozen=True)
class Task:
    """Task of one client in one round.

    Attributes:
        round: number of the round, from 1.
        client: index of the client.
        architecture: the subnet it trains.
        tensors: the subnet's slices of the supernet, as views of it: to be copied, never written.
        epochs: passes over the client's data.
        learning_rate: learning rate of this round.
        seed: seed of all the client's draws in this round.
        objective: local objective of the training.
        steps: most local steps of all epochs together; None for no limit.
    """

    round: int
    client: int
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    epochs: int
    learning_rate: float
    seed: int
    objective: LocalObjective = dataclasses.field(default_factory=Standard)
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Update:
    """Update of a client: its answer to a task.

    Attributes:
        task: the task that it was given.
        tensors: the trained slices, with the task's names and shapes; the engine may reuse their memory once
            it is asked for the next answer.
        examples: number of its training images.
        loss: mean training loss of its last epoch.
        started: time when its local epochs began, in seconds of the server's monotonic clock.
        sgd_seconds: seconds spent in them.
        traffic: bytes of the messages that carried the task and the answer.
        compute: multiply–accumulates of the forward passes of its local epochs.
        logits: logits that the task's objective trains, after its local epochs; None where it has none.
    """

    task: Task
    tensors: Mapping[str, Tensor]
    examples: int
    loss: float
    started: float
    sgd_seconds: float
    traffic: Traffic = NO_TRAFFIC
    compute: int = 0
    logits: Logits | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationTask:
    """Task of one client in the calibration of a subnet.

    Attributes:
        client: index of the client.
        architecture: the subnet.
        tensors: its slices of the supernet, never written.
        batches: number of batches to run, or as many as the client's images make up.
        batch_size: number of images of a batch.
        seed: seed of the draw of the images.
    """

    client: int
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    batches: int
    batch_size: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums of BatchNorm's statistics over some batches; a client reports nothing else in a calibration.

    Attributes:
        sums: the float64 sums of every norm's moments over the batches, each times its images, by the names that
            ``moments.py`` gives them; shapes (channels,).
        batches: number of batches.
        images: number of images in all batches.
        traffic: bytes of the messages that carried the task and the answer; one with several tasks counts once.
    """

    sums: Mapping[str, Tensor]
    batches: int
    images: int
    traffic: Traffic = NO_TRAFFIC


@dataclasses.dataclass(frozen=True)
class EvaluationTask:
    """Task of one client in the evaluation of a subnet on the images that clients hold out.

    Attributes:
        client: index of the client.
        architecture: the subnet.
        tensors: its parameters and BatchNorm's statistics, never written.
        batch_size: number of images of a batch.
    """

    client: int
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Correct:
    """Answer of a client to an evaluation: its number of held-out images that a subnet classified correctly.

    Attributes:
        task: the task that it was given.
        correct: number of images classified correctly.
        images: number of images held out.
        traffic: bytes of the messages that carried the task and the answer; one with several tasks counts once.
    """

    task: EvaluationTask
    correct: int
    images: int
    traffic: Traffic = NO_TRAFFIC


@dataclasses.dataclass(frozen=True)
class Failure:
    """Failure of a client to give a usable answer, with the reason.

    Attributes:
        task: the task that it was given.
        kind: kind of failure, by which failures are counted.
        reason: reason in words.
        traffic: bytes of the message that carried the task, and of the reply.
    """

    task: Task | CalibrationTask | EvaluationTask
    kind: FailureKind
    reason: str
    traffic: Traffic = NO_TRAFFIC


def check_update(update: Update) -> Failure | None:
    """Return the failure that an update counts as because it cannot be merged, or None if it can be merged."""
    problem = _problem(update)
    return None if problem is None else Failure(update.task, *problem, update.traffic)


def _problem(update: Update) -> tuple[FailureKind, str] | None:
    if update.examples < 1:
        return "examples", f"it reports {counted(update.examples, 'example')}"
    if not math.isfinite(update.loss):
        return "non-finite", f"its training loss is {update.loss}"
    if update.tensors.keys() != update.task.tensors.keys():
        missing = sorted(update.task.tensors.keys() - update.tensors.keys())
        if missing:
            return "names", f"tensor {missing[0]} is missing"
        # The name is the client's word: short, and without control characters.
        return (
            "names",
            f"tensor {reprlib.repr(min(update.tensors.keys() - update.task.tensors.keys()))} was not asked for",
        )
    for name, sent in update.task.tensors.items():
        tensor = update.tensors[name]
        if tensor.shape != sent.shape:
            return "shape", f"{name} has shape {tuple(tensor.shape)} instead of {tuple(sent.shape)}"
        if tensor.dtype != sent.dtype:
            return "dtype", f"{name} has type {tensor.dtype} instead of {sent.dtype}"
    unusable = first_not_finite(update.tensors)
    if unusable is not None:
        return "non-finite", f"{unusable} holds NaN or infinity"
    return _problem_of_logits(update)


def _problem_of_logits(update: Update) -> tuple[FailureKind, str] | None:
    sent = update.task.objective.logits
    if _lengths(update.logits) != _lengths(sent):
        return "shape", f"its logits have the lengths {_lengths(update.logits)} instead of {_lengths(sent)}"
    if not all(math.isfinite(logit) for slot in update.logits or () for logit in slot or ()):
        return "non-finite", "its logits hold NaN or infinity"
    return None


def _lengths(logits: Logits | None) -> list[int | None] | None:
    """Return the number of logits of every slot."""
    return None if logits is None else [None if slot is None else len(slot) for slot in logits]


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of the tensors' values."""
    return sum(tensor.nbytes for tensor in tensors.values())
