"""What a search by path sampling knows of every block slot: the logits of its choices, and what is settled."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.clients.paths import Path, Paths
from fedpareto.training.local_objective import Logits


@dataclasses.dataclass(frozen=True)
class Decisions:
    """The state of one search through the paths of a network.

    Attributes:
        logits: α of every slot's choices.
        settled: the number of the choice that a slot keeps; None while it is open.
    """

    logits: tuple[tuple[float, ...], ...]
    settled: tuple[int | None, ...]

    def hull(self, paths: Paths) -> Architecture:
        """Return the smallest network around all paths that are open."""
        return paths.network(self._outermost(paths))

    def asked(self, paths: Paths) -> Logits:
        """Return the logits of the hull's slots, None where one is settled."""
        outermost = zip(paths.slots, self._outermost(paths), self.logits, self.settled, strict=True)
        return tuple(
            logits if settled is None else None
            for slot, choice, logits, settled in outermost
            if choice is not None and slot.choices[choice] is not None
        )

    def answered(self, paths: Paths, answers: Sequence[tuple[float, Logits]], gap: float) -> "Decisions":
        """Return what is known once clients have moved the logits of the hull's slots.

        New logits are the mean over the answers, each with its weight. A slot is settled on its most probable choice
        once that is more probable than any other by ``gap``.
        """
        if not answers:
            return self
        weights, logits, number = [weight for weight, _ in answers], list(self.logits), 0
        for index, (slot, choice) in enumerate(zip(paths.slots, self._outermost(paths), strict=True)):
            if choice is None or slot.choices[choice] is None:
                continue
            if self.settled[index] is None:
                logits[index] = _mean(weights, [answer[number] or () for _, answer in answers])
            number += 1
        return dataclasses.replace(self, logits=tuple(logits))._settle(gap)

    def best(self, paths: Paths) -> Path:
        """Return the path of the choices that are settled or else most probable."""
        pairs = zip(self.settled, self.logits, strict=True)
        return paths.path([_most(logits) if settled is None else settled for settled, logits in pairs])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"logits": [list(slot) for slot in self.logits], "settled": list(self.settled)}

    def _outermost(self, paths: Paths) -> Path:
        pairs = zip(paths.slots, self.settled, strict=True)
        return paths.path([slot.largest if settled is None else settled for slot, settled in pairs])

    def _settle(self, gap: float) -> "Decisions":
        pairs = zip(self.settled, self.logits, strict=True)
        settled = [_most(logits) if settled is None and _lead(logits) >= gap else settled for settled, logits in pairs]
        return dataclasses.replace(self, settled=tuple(settled))


def undecided(paths: Paths) -> Decisions:
    """Return a search that has not begun: all choices alike, settled only where there is one."""
    logits = tuple((0.0,) * len(slot.choices) for slot in paths.slots)
    return Decisions(logits, tuple(0 if len(slot) == 1 else None for slot in logits))


def decisions_from_json(value: object) -> Decisions:
    """Return what JSON values describe; the inverse of ``to_json``.

    Raises:
        UserError: a field is missing or of another type.
    """
    fields = fields_of(value, "the state of the search")
    logits, settled = fields.lists_of_numbers("logits"), fields.wholes_or_nulls("settled")
    if len(logits) != len(settled):
        raise fields.wrong("settled", f"a list of {counted(len(logits), 'choice')}")
    return Decisions(logits, settled)


def mean_of(several: Sequence[Decisions]) -> Decisions:
    """Return the mean logits of one or more searches, nothing of them settled."""
    slots = zip(*(one.logits for one in several), strict=True)
    logits = tuple(_mean([1.0] * len(several), slot) for slot in slots)
    return Decisions(logits, (None,) * len(logits))


def probabilities(logits: Sequence[float]) -> list[float]:
    """Return softmax(logits)."""
    most = max(logits)
    weights = [math.exp(logit - most) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def _mean(weights: Sequence[float], rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the weighted mean of every column."""
    # Shares, so that a single row comes back to the last bit.
    shares = [weight / sum(weights) for weight in weights]
    return tuple(
        sum(share * own for share, own in zip(shares, column, strict=True)) for column in zip(*rows, strict=True)
    )


def _most(logits: Sequence[float]) -> int:
    """Return the number of the most probable choice, of equal ones the first."""
    return max(range(len(logits)), key=lambda number: logits[number])


def _lead(logits: Sequence[float]) -> float:
    """Return by how much the most probable choice is more probable than the next; 1 if there is no other."""
    first, second = sorted([*probabilities(logits), 0.0], reverse=True)[:2]
    return first - second
