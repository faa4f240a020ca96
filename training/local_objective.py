"""Local objectives: the training that a client is asked for on the slices it was sent, with its needs and costs."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch

from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.randomness import torch_stream

#: For every block slot of a network the logits of its choices (see ``paths.py``); None where it keeps its block.
Logits = tuple[tuple[float, ...] | None, ...]


class LocalObjective(Protocol):
    """The aim of a client's local training of its task's architecture: a value that crosses the wire.

    Attributes:
        kind: its name in JSON.
        same_every_step: whether every step runs the same networks, so that one can be recorded once and replayed.
    """

    kind: ClassVar[str]
    same_every_step: ClassVar[bool]

    @property
    def logits(self) -> Logits | None:
        """Logits that are trained beside the weights and come back with them; None where there are none."""

    def networks_of_steps(self, seed: int) -> Iterator[Sequence[Architecture]]:
        """Yield, step by step without end, the networks inside the task's that are trained beside it.

        ``seed`` is the task's.
        """

    def to_json(self) -> dict[str, Any]:
        """The objective as plain JSON values, its kind among them."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The objective that JSON values of its kind describe.

        Raises:
            UserError, KeyError, TypeError, ValueError, OverflowError: they describe none.
        """


@dataclasses.dataclass(frozen=True)
class Standard:
    """Train the task's architecture, and nothing else."""

    kind: ClassVar[str] = "plain"
    same_every_step: ClassVar[bool] = True

    @property
    def logits(self) -> None:
        """None: only weights are trained."""
        return None

    def networks_of_steps(self, seed: int) -> Iterator[Sequence[Architecture]]:
        """Yield no network in any step."""
        del seed
        return itertools.repeat(())

    def to_json(self) -> dict[str, Any]:
        """The kind, which is all there is to say."""
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The objective, whatever else is said."""
        del value
        return cls()


@dataclasses.dataclass(frozen=True)
class CoTraining:
    """Train the task's architecture and networks inside it in every local step, their gradients summed.

    Attributes:
        always: networks inside the task's architecture that are trained in every step.
        drawn: networks inside it of which one, drawn at random, is trained in every step; none when empty.
        distillation: share of the smaller networks' loss that is distilled from the task's architecture.
        temperature: of the distillation.

    Raises:
        UserError: the share is not from 0 to 1, or the temperature not positive.
    """

    always: tuple[Architecture, ...]
    drawn: tuple[Architecture, ...]
    distillation: float
    temperature: float
    kind: ClassVar[str] = "co-training"
    same_every_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.distillation <= 1:
            raise UserError(f"distillation is {self.distillation}; it must be from 0 to 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}; it must be positive")

    @property
    def logits(self) -> None:
        """None: only weights are trained."""
        return None

    def networks_of_steps(self, seed: int) -> Iterator[Sequence[Architecture]]:
        """Yield, step by step without end, the networks that are always trained and the one that is drawn."""
        draws = torch_stream(seed, "networks")
        while True:
            if self.drawn:
                yield (*self.always, self.drawn[int(torch.randint(len(self.drawn), (), generator=draws))])
            else:
                yield self.always

    def to_json(self) -> dict[str, Any]:
        """The objective as plain JSON values, its kind among them."""
        return {
            "kind": self.kind,
            "always": [architecture.to_json() for architecture in self.always],
            "drawn": [architecture.to_json() for architecture in self.drawn],
            "distillation": self.distillation,
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The objective that JSON values of its kind describe; the inverse of ``to_json``.

        Raises:
            UserError, KeyError, TypeError, ValueError, OverflowError: they describe none.
        """
        always, drawn = (tuple(architecture_from_json(inner) for inner in value[name]) for name in ("always", "drawn"))
        return cls(always, drawn, float(value["distillation"]), float(value["temperature"]))


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
    kind: ClassVar[str] = "path-sampling"
    same_every_step: ClassVar[bool] = False

    def networks_of_steps(self, seed: int) -> Iterator[Sequence[Architecture]]:
        """Yield no network in any step: a path takes at most what the task's architecture does."""
        del seed
        return itertools.repeat(())

    def to_json(self) -> dict[str, Any]:
        """The objective as plain JSON values, its kind among them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The objective that JSON values of its kind describe; the inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: they describe none.
        """
        logits, rate, penalty = (
            logits_from_json(value["logits"]),
            _number(value["learning_rate"]),
            value["macs_penalty"],
        )
        read = cls(logits, rate, _number(penalty), int(value["macs_target"]))
        numbers = [read.learning_rate, read.macs_penalty, *(number for slot in logits for number in slot or ())]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("its numbers are not finite")
        if read.learning_rate <= 0 or read.macs_penalty < 0 or read.macs_target < 0:
            raise ValueError("its learning rate is not positive, or its penalty or target negative")
        return read


_KINDS: Mapping[str, type[LocalObjective]] = {one.kind: one for one in (Standard, CoTraining, PathSampling)}


def objective_from_json(value: object) -> LocalObjective:
    """The local objective that JSON values describe, whatever its kind.

    Raises:
        UserError: they describe none.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError("it is no object")
        if value["kind"] not in _KINDS:
            raise ValueError(f"its kind is {value['kind']!r}")
        return _KINDS[value["kind"]].from_json(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"a job whose work cannot be read ({error})") from error


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
