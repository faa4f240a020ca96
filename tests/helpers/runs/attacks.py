"""Hostile clients in a simulation: an engine that changes the answers of some, and the changes that they make."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch

from fedpareto.training.engines.protocol import CalibratingEngine, Engine
from fedpareto.training.messages import CalibrationTask, Failure, Statistics, Task, Update
from helpers.runs.simulation import WrappedEngine, own_memory

Change = Callable[[Update], Update]


class HostileEngine(WrappedEngine):
    """Trains as another engine does, and passes the updates of hostile clients through their changes."""

    def __init__(self, inner: Engine, hostile: Mapping[int, Change]) -> None:
        super().__init__(inner)
        self._hostile = hostile

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for answer in self._inner.run(tasks):
            change = self._hostile.get(answer.task.client)
            yield answer if change is None or isinstance(answer, Failure) else change(own_memory(answer))


class HostileCalibration(HostileEngine):
    """Calibrates as another engine does, and passes the statistics of hostile clients through ``change``."""

    def __init__(
        self, inner: CalibratingEngine, hostile: Iterable[int], change: Callable[[Statistics], Statistics]
    ) -> None:
        super().__init__(inner, {})
        self._calibrating, self._clients, self._change = inner, set(hostile), change

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        asked = list(tasks)
        for task, answer in zip(asked, self._calibrating.calibrate(asked), strict=True):
            hostile = task.client in self._clients and isinstance(answer, Statistics)
            yield self._change(answer) if hostile and isinstance(answer, Statistics) else answer


def scaled(times: float) -> Change:
    """Return the attack that multiplies the change of all weights."""

    def change(update: Update) -> Update:
        sent = update.task.tensors
        tensors = {name: sent[name] + times * (tensor - sent[name]) for name, tensor in update.tensors.items()}
        return dataclasses.replace(update, tensors=tensors)

    return change


def constant(value: float) -> Change:
    """Return the attack that sets every weight to a value."""

    def change(update: Update) -> Update:
        tensors = {name: torch.full_like(tensor, value) for name, tensor in update.tensors.items()}
        return dataclasses.replace(update, tensors=tensors)

    return change


def with_logit(value: float) -> Change:
    """Return the attack that sets the first logit of every open slot."""

    def change(update: Update) -> Update:
        logits = tuple(None if slot is None else (value, *slot[1:]) for slot in update.logits or ())
        return dataclasses.replace(update, logits=logits)

    return change


def from_round(number: int, change: Change) -> Change:
    """Return the attack that begins in a round."""
    return lambda update: change(update) if update.task.round >= number else update
