"""Results of a round: its plan, and the clients' answers, which are added up as they arrive."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedpareto.cache.entries import CacheEntry
from fedpareto.training.aggregation.held_updates import HeldUpdates
from fedpareto.training.aggregation.protocol import Aggregator
from fedpareto.training.aggregation.update_bounds import PastRound, UpdateBounds
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.local_objective import LocalObjective, Logits, Standard
from fedpareto.training.messages import Failure, Update, check_update
from fedpareto.training.privacy.mechanism import clip_scale, deltas, update_norm
from fedpareto.training.traffic import Traffic


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """Plan of one round: which client trains which network, and how.

    Attributes:
        number: number of the round, from 1.
        learning_rate: learning rate of the clients.
        beta: weight β_t of the largest network; None where all weigh the same.
        assigned: the drawn clients in order, and the network that each trains.
        weights: weights of the clients' updates in the average.
        objectives: local objectives of clients; a client that is not named has the standard objective.
        branches: clients that train a network with weights of its own, and its name; all others train the supernet's
            weights.
        steps: most local steps of every client; empty where all take those of their epochs.
        power: p of draws in proportion to MACs^−p; None where networks are drawn in other ways.
    """

    number: int
    learning_rate: float
    beta: float | None
    assigned: Mapping[int, CacheEntry]
    weights: Mapping[int, float]
    objectives: Mapping[int, LocalObjective] = dataclasses.field(default_factory=dict)
    branches: Mapping[int, str] = dataclasses.field(default_factory=dict)
    steps: Mapping[int, int] = dataclasses.field(default_factory=dict)
    power: float | None = None

    def objective(self, client: int) -> LocalObjective:
        """Local objective of a client of the round."""
        return self.objectives.get(client, Standard())


@dataclasses.dataclass(frozen=True)
class ClientResult:
    """Record of a merged update: its number of images, its training loss, its traffic and its compute."""

    examples: int
    loss: float
    compute: int
    traffic: Traffic

    def to_json(self) -> dict[str, Any]:
        """Result as plain JSON values, in the order of the keys of records."""
        values = dataclasses.asdict(self)
        traffic = values.pop("traffic")
        return {**values, "bytes_down": traffic["down"], "bytes_up": traffic["up"]}


class RoundResults:
    """Results of a round so far: passes good updates to their aggregators and counts all others.

    Args:
        plan: the round.
        fold: aggregator of the updates of the supernet.
        branches: aggregators of the networks with weights of their own, by name.
        by_examples: multiply every client's weight by its number of images.
        most_examples: images beyond which a client weighs no more.
        clip: largest norm of a client's change in a private run; 0 in others, which average whole tensors.
        bounds: bounds on one client's update; None for none.
    """

    def __init__(
        self,
        plan: RoundPlan,
        fold: Aggregator,
        *,
        by_examples: bool,
        most_examples: float = math.inf,
        clip: float = 0.0,
        branches: Mapping[str, Aggregator] | None = None,
        bounds: UpdateBounds | None = None,
    ) -> None:
        self.plan, self.fold, self.branches = plan, fold, branches or {}
        self._by_examples, self._most_examples, self._clip = by_examples, most_examples, clip
        self._bounds, self._held = bounds, HeldUpdates()
        self._clipped = 0
        if clip:
            # Whoever fails later counts as a change of zero: the divisor must not tell who failed.
            for client, entry in plan.assigned.items():
                self.private_fold.reserve_weight(entry.architecture, plan.weights[client])
        self.accepted: dict[int, ClientResult] = {}
        #: Of the accepted clients that have some.
        self.logits: dict[int, Logits] = {}
        self.failures: list[Failure] = []
        self._sgd: list[tuple[float, float]] = []
        self.traffic = Traffic()
        self.compute = 0

    def take(self, answer: Update | Failure) -> None:
        """Check an answer, then add it to the sums, count it as a failure, or hold it until ``settle``."""
        self.traffic += answer.traffic
        if isinstance(answer, Failure):
            self.failures.append(answer)
            return
        self._sgd.append((answer.started, answer.started + answer.sgd_seconds))
        self.compute += answer.compute
        failure = check_update(answer) or self._measured(answer)
        if failure is not None:
            self.failures.append(failure)
        elif self._bounds is not None and self._bounds.waiting:
            self._held.keep(answer)
        else:
            self._add(answer)

    def settle(self) -> None:
        """Judge the updates that were held by the round's median, and add the good ones in the order they came."""
        for update in self._held.taken():
            self._add(update)

    def _measured(self, update: Update) -> Failure | None:
        return None if self._bounds is None else self._bounds.measure(update)

    def _add(self, answer: Update) -> None:
        """Add an update to the sums, or count it as a failure if it is an outlier or has no norm."""
        outlier = None if self._bounds is None else self._bounds.compare(answer)
        failure = outlier or self._fold(answer)
        if failure is not None:
            self.failures.append(failure)
            return
        accepted = ClientResult(answer.examples, answer.loss, answer.compute, answer.traffic)
        self.accepted[answer.task.client] = accepted
        if answer.logits is not None:
            self.logits[answer.task.client] = answer.logits

    def _fold(self, update: Update) -> Failure | None:
        """Add an update to the sums, or return the failure that it is counted as."""
        architecture = update.task.architecture
        if not self._clip:
            branch = self.plan.branches.get(update.task.client)
            fold = self.fold if branch is None else self.branches[branch]
            fold.add(architecture, update.tensors, self._weight(update.task.client, update.examples))
            return None
        norm = update_norm(update)
        if not math.isfinite(norm):
            return Failure(update.task, "non-finite", f"its change has norm {norm}")
        self.private_fold.add_steps(
            architecture, deltas(update), self.plan.weights[update.task.client] * clip_scale(norm, self._clip)
        )
        self._clipped += norm > self._clip
        return None

    def weight(self, client: int) -> float:
        """Weight of an accepted client's update in the round's sums."""
        return self._weight(client, self.accepted[client].examples)

    def _weight(self, client: int, examples: int) -> float:
        return self.plan.weights[client] * (min(examples, self._most_examples) if self._by_examples else 1)

    @property
    def private_fold(self) -> WeightedAverage:
        """Aggregator of a private run: always the weighted average, which the account of privacy is about."""
        if not isinstance(self.fold, WeightedAverage):
            raise TypeError(f"{type(self.fold).__name__} aggregates a private run")
        return self.fold

    @property
    def clipped(self) -> float | None:
        """Share of the accepted updates that were larger than the clip, or None in a run that is not private."""
        return self._clipped / len(self.accepted) if self._clip else None

    @property
    def moves(self) -> dict[int, float]:
        """Moves of the accepted clients, ‖Δ‖/‖sent‖, by client; empty without bounds."""
        found = {} if self._bounds is None else self._bounds.moves
        return {client: found[client] for client in self.accepted if client in found}

    @property
    def memory(self) -> PastRound:
        """Memory of the round, by which later ones are judged."""
        if self._clip:
            # What is neither clipped nor noisy is not kept.
            return PastRound(0.0, self.plan.learning_rate, 0.0)
        losses, moves = [one.loss for one in self.accepted.values()], list(self.moves.values())
        return PastRound(statistics.median(moves or [0.0]), self.plan.learning_rate, statistics.median(losses))

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
        """Number of failures of each kind."""
        return Counter(failure.kind for failure in self.failures)

    @property
    def train_loss(self) -> float:
        """Mean loss over the accepted clients, weighted by examples."""
        examples = sum(update.examples for update in self.accepted.values())
        return sum(update.examples * update.loss for update in self.accepted.values()) / examples
