"""What a client of a federation may say instead of what it found, for tests."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.engines.flower import wire
from helpers.runs.flower import (
    Honest,
    Message,
    Reaction,
    Spoil,
    edited,
    raw_blob,
)

#: The client whose answers are spoiled.
ODD = 2

BIAS = "0/head.classifier.linear.bias"
WEIGHT = "0/head.classifier.linear.weight"

#: Text that would do things to a terminal.
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\u202e"


def of_job(**changes: Any) -> Spoil:
    """Return a spoil that replaces fields of the one job's result; ``...`` leaves one out."""

    def edit(fields: dict[str, Any]) -> None:
        job = {**fields["jobs"][0], **changes}
        fields["jobs"] = [{name: value for name, value in job.items() if value is not ...}]

    return edited(edit)


def of_fields(**changes: Any) -> Spoil:
    def edit(fields: dict[str, Any]) -> None:
        fields.update(changes)
        for name in [name for name, value in fields.items() if value is ...]:
            del fields[name]

    return edited(edit)


def of_tensor(name: str, change: Callable[[Tensor], Tensor | None]) -> Spoil:
    """Return a spoil that changes one tensor, or drops it."""

    def edit(tensors: Tensors) -> None:
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return edited(tensors=edit)


def one_more(name: str) -> Spoil:
    return edited(tensors=lambda tensors: tensors.update({name: torch.ones(1)}))


def as_blob(make: Callable[[bytes], bytes]) -> Spoil:
    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        del message
        header, blob = answer()
        return header, make(blob)

    return spoil


def as_header(header: bytes) -> Spoil:
    return lambda message, answer: (header, answer()[1])


def filled(value: float) -> Callable[[Tensor], Tensor]:
    def fill(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[3] = value
        return tensor

    return fill


def as_bytes_of(kind: str, width: int) -> Spoil:
    """Return a spoil that sends all tensors as bytes of another type."""

    def make(blob: bytes) -> bytes:
        shapes = {name: tuple(tensor.shape) for name, tensor in wire.parse_blob(blob).items()}
        ends = list(itertools.accumulate(width * torch.Size(shape).numel() for shape in shapes.values()))
        starts = [0, *ends]
        entries = {n: (kind, s, (starts[i], ends[i])) for i, (n, s) in enumerate(shapes.items())}
        return raw_blob(entries, b"\0" * ends[-1])

    return as_blob(make)


def of_first_job(**changes: Any) -> Spoil:
    return edited(lambda fields: fields["jobs"][0].update(changes))
