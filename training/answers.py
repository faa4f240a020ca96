"""One round in the making: what was planned, and what came back, added up as it arrives."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping

from cache.entries import Entry
from training.aggregation import Fold
from training.messages import Failure, Update, check_update


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """What the server asks of one round.

    Attributes:
        number: of the round, from 1.
        learning_rate: of the clients.
        beta: weight β_t of the largest network.
        assigned: the drawn clients in order, and what each trains.
        weights: of the clients' updates.
    """

    number: int
    learning_rate: float
    beta: float
    assigned: Mapping[int, Entry]
    weights: Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Accepted:
    """What is kept of a merged update: how many images it stands for, its training loss, what it cost to send."""

    examples: int
    loss: float
    bytes_down: int
    bytes_up: int


class Answers:
    """Folds good updates in and counts all others; holds no tensors but the fold's.

    Args:
        plan: the round.
        fold: receives the updates.
        by_examples: multiply every client's weight by its number of images.
    """

    def __init__(self, plan: RoundPlan, fold: Fold, *, by_examples: bool) -> None:
        self.plan, self.fold = plan, fold
        self._by_examples = by_examples
        self.accepted: dict[int, Accepted] = {}
        self.failures: list[Failure] = []
        self._sgd: list[tuple[float, float]] = []
        self.bytes_up = 0
        self.bytes_down = 0

    def take(self, answer: Update | Failure) -> None:
        """Check an answer and fold it in, or count why it cannot be."""
        self.bytes_down += answer.bytes_down
        self.bytes_up += answer.bytes_up
        if isinstance(answer, Failure):
            self.failures.append(answer)
            return
        self._sgd.append((answer.started, answer.started + answer.sgd_seconds))
        failure = check_update(answer)
        if failure is not None:
            self.failures.append(failure)
            return
        client = answer.task.client
        weight = self.plan.weights[client] * (answer.examples if self._by_examples else 1)
        self.fold.add(answer.task.architecture, answer.tensors, weight)
        self.accepted[client] = Accepted(answer.examples, answer.loss, answer.bytes_down, answer.bytes_up)

    @property
    def sgd_seconds(self) -> float:
        """Time in which at least one client was in its local epochs."""
        total, end = 0.0, -math.inf
        for start, stop in sorted(self._sgd):
            total += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return total

    @property
    def failed_by_kind(self) -> Counter[str]:
        """How many answers of each kind of failure there were."""
        return Counter(failure.kind for failure in self.failures)

    @property
    def train_loss(self) -> float:
        """Mean loss over the accepted clients, weighted by examples."""
        examples = sum(update.examples for update in self.accepted.values())
        return sum(update.examples * update.loss for update in self.accepted.values()) / examples
