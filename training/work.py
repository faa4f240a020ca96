"""What a client does with the slices it was sent, besides training them as they are."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from supernet.architecture import Architecture, architecture_from_json
from supernet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plain:
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


Work = Plain | CoTraining


def work_to_json(work: Work) -> dict[str, Any]:
    """Return the work as plain JSON values."""
    if isinstance(work, Plain):
        return {"kind": "plain"}
    return {
        "kind": "co-training",
        "always": [architecture.to_json() for architecture in work.always],
        "drawn": [architecture.to_json() for architecture in work.drawn],
        "distillation": work.distillation,
        "temperature": work.temperature,
    }


def work_from_json(value: object) -> Work:
    """Return the work that JSON values describe; the inverse of ``work_to_json``.

    Raises:
        UserError: they describe none.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError("it is no object")
        if value["kind"] == "plain":
            return Plain()
        if value["kind"] == "co-training":
            always, drawn = (
                tuple(architecture_from_json(inner) for inner in value[name]) for name in ("always", "drawn")
            )
            return CoTraining(always, drawn, float(value["distillation"]), float(value["temperature"]))
        raise ValueError(f"its kind is {value['kind']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"a job whose work cannot be read ({error})") from error
