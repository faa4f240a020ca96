"""What a client does with the slices it was sent, besides training them as they are."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Standard:
    """Train the task's architecture, and nothing else."""


@dataclasses.dataclass(frozen=True)
class CoTraining:
    """Train the task's architecture and networks inside it in every local step, their gradients summed.

    Attributes:
        always: networks inside the task's architecture that are trained in every step.
        drawn: networks inside it of which one, drawn at random, is trained in every step; none when empty.
        distillation: share of the smaller networks' loss that is distilled from the task's architecture.
        temperature: of the distillation.
    """

    always: tuple[Architecture, ...]
    drawn: tuple[Architecture, ...]
    distillation: float
    temperature: float

    def __post_init__(self) -> None:
        if not 0 <= self.distillation <= 1:
            raise UserError(f"distillation is {self.distillation}; it must be from 0 to 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}; it must be positive")


#: For every block slot of a network the logits of its choices (see ``paths.py``); None where it keeps its block.
Logits = tuple[tuple[float, ...] | None, ...]


@dataclasses.dataclass(frozen=True)
class PathSampling:
    """Train one path through the task's architecture a step, drawn from logits that are trained with it.

    Attributes:
        logits: α, of the slots that are open.
        learning_rate: of Adam on them.
        macs_penalty: added to the loss for every multiply–accumulate that paths are expected to take beyond the target.
        macs_target: multiply–accumulates of one image.
    """

    logits: Logits
    learning_rate: float
    macs_penalty: float = 0.0
    macs_target: int = 0


LocalObjective = Standard | CoTraining | PathSampling


def work_to_json(work: LocalObjective) -> dict[str, Any]:
    """Return the work as plain JSON values."""
    if isinstance(work, Standard):
        return {"kind": "plain"}
    if isinstance(work, PathSampling):
        return {"kind": "path-sampling", **dataclasses.asdict(work)}
    return {
        "kind": "co-training",
        "always": [architecture.to_json() for architecture in work.always],
        "drawn": [architecture.to_json() for architecture in work.drawn],
        "distillation": work.distillation,
        "temperature": work.temperature,
    }


def work_from_json(value: object) -> LocalObjective:
    """Return the work that JSON values describe; the inverse of ``work_to_json``.

    Raises:
        UserError: they describe none.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError("it is no object")
        if value["kind"] == "plain":
            return Standard()
        if value["kind"] == "co-training":
            always, drawn = (
                tuple(architecture_from_json(inner) for inner in value[name]) for name in ("always", "drawn")
            )
            return CoTraining(always, drawn, float(value["distillation"]), float(value["temperature"]))
        if value["kind"] == "path-sampling":
            return _path_sampling(value)
        raise ValueError(f"its kind is {value['kind']!r}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"a job whose work cannot be read ({error})") from error


def _path_sampling(value: Mapping[str, Any]) -> PathSampling:
    logits, rate, penalty = logits_from_json(value["logits"]), _number(value["learning_rate"]), value["macs_penalty"]
    work = PathSampling(logits, rate, _number(penalty), int(value["macs_target"]))
    numbers = [work.learning_rate, work.macs_penalty, *(number for slot in logits for number in slot or ())]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("its numbers are not finite")
    if work.learning_rate <= 0 or work.macs_penalty < 0 or work.macs_target < 0:
        raise ValueError("its learning rate is not positive, or its penalty or target negative")
    return work


def logits_from_json(value: object) -> Logits:
    """Return logits as they come out of JSON, whatever their number and size; NaN and infinity may be among them.

    Raises:
        TypeError: they are not lists of numbers, or null.
        OverflowError: a number is larger than any float.
    """
    if not isinstance(value, list):
        raise TypeError("its logits are no list")
    for slot in value:
        if slot is not None and not (isinstance(slot, list) and slot):
            raise TypeError("the logits of a slot are neither numbers nor null")
    return tuple(None if slot is None else tuple(_number(number) for number in slot) for slot in value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is none")
    return float(value)
