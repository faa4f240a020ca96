"""Bounds on what one client can do to a round: how far it moves its weights, by its own steps and by other clients.

The move of an update is ‖Δ‖/‖sent‖: the L2 norm of its change over that of the slices it was sent, of all tensors
together. Of the measures that can be compared over slices of different size it spreads least among honest clients.

Two bounds hold:

- **By the steps**: SGD with clipped gradients cannot move weights farther than its steps, learning rate, momentum, clip
  and weight decay allow, whatever the images are. So no honest client is ever beyond it. Adam bounds logits likewise.
- **By the others**: a move of more than ``factor`` times the median's is an outlier. The median is that of the medians
  of the last rounds, each raised in proportion where the learning rate was lower than now. Where there is no round
  before, updates wait for the median of their own round.

The median stays among honest moves as long as fewer than half of the clients are hostile.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.messages import Failure, Update
from fedpareto.training.privacy.mechanism import deltas

#: Rounds before that count; fewer would let one odd round decide.
REMEMBERED = 5

#: Updates of a round from which on its median can tell an outlier.
_ENOUGH = 3

#: A move that is harmless whatever the others': where a learning rate ends near zero, rounding is all there is.
_HARMLESS = 1e-3

#: No norm of a change is above it: sums of float32, times weights and numbers of images, stay far from overflow.
_LARGEST_NORM = 1e15

#: No logit of a choice is above it: softmax has settled long before.
_LARGEST_LOGIT = 1e3

#: Room for rounding, also to bf16 on the wire.
_ROOM = 1.1

#: Adam moves by at most this many times its learning rate a step: sqrt((1 − β1)² / (1 − β2) / (1 − β1²/β2)), by the
#: inequality of Cauchy and Schwarz, for the betas of logits.
_ADAM_STEPS = 18.3


@dataclasses.dataclass(frozen=True)
class PastRound:
    """Memory of a merged round, by which the next ones are judged.

    Attributes:
        move: median move of its accepted updates; 0 in a private run.
        lr: learning rate of its clients.
        loss: median of its clients' training losses; 0 in a private run.
    """

    move: float
    lr: float
    loss: float


class UpdateBounds:
    """Bounds on the updates of one round.

    Args:
        client: the local training of the run's clients.
        factor: largest move in medians; 0 for no bound by the others.
        past: the rounds before, the newest last.
    """

    def __init__(self, client: ClientConfig, factor: float, past: Sequence[PastRound] = ()) -> None:
        self._client, self._factor = client, factor
        self._past = [round_ for round_ in past[-REMEMBERED:] if round_.move > 0]
        #: Moves of the round's updates so far, those beyond a bound too, by client.
        self.moves: dict[int, float] = {}

    @property
    def waiting(self) -> bool:
        """True if updates are to wait for the median of the round."""
        return self._factor > 0 and not self._past

    def measure(self, update: Update) -> Failure | None:
        """Measure an update that can be merged; return the failure that it counts as if its steps cannot have made it.

        Memory is that of one tensor's change.
        """
        changed, sent = norm_of(delta for _, delta in deltas(update)), norm_of(update.task.tensors.values())
        if not changed <= _LARGEST_NORM:
            return _outlier(update, f"its update has norm {changed:.1e}, and none that can be merged has above 1e15")
        steps = self._steps(update)
        most = _ROOM * self._reach(update, steps, sent)
        if changed > most:
            return _outlier(
                update,
                f"its update has norm {changed:.2g}; {counted(steps, 'step')} of learning rate "
                f"{update.task.learning_rate:.2g} with clipped gradients reach {most:.2g} at most",
            )
        self.moves[update.task.client] = changed / max(sent, 1e-12)
        return self._beyond_logits(update, steps)

    def compare(self, update: Update) -> Failure | None:
        """Return the failure that a measured update counts as if it is an outlier among the others, else None."""
        median, move = self._median(update.task.learning_rate), self.moves[update.task.client]
        if median is None or move <= max(self._factor * median, _HARMLESS):
            return None
        far = f"{move / median:.2g}× as far as" if median else "unlike"
        return _outlier(update, f"its update moves weights {far} the median client's (at most {self._factor:g}×)")

    def _median(self, rate: float) -> float | None:
        """Median move that updates of a learning rate are compared with; None where nothing can be compared."""
        if not self._factor:
            return None
        if self._past:
            return statistics.median(one.move * max(1.0, rate / one.lr) for one in self._past)
        return statistics.median(self.moves.values()) if len(self.moves) >= _ENOUGH else None

    def _steps(self, update: Update) -> int:
        task = update.task
        # Rounded up: room for clients that train an incomplete batch.
        taken = task.epochs * max(1, -(-update.examples // self._client.batch))
        return taken if task.steps is None else min(taken, task.steps)

    def _reach(self, update: Update, steps: int, sent: float) -> float:
        """Largest norm of a change: a step adds at most η/(1 − μ)·(clip + λ·‖x‖), and ‖x‖ grows with it."""
        if not self._client.clip:
            return math.inf
        rate, decay = update.task.learning_rate / (1 - self._client.momentum), self._client.weight_decay
        growth = steps * math.log1p(rate * decay)
        if growth > math.log(_LARGEST_NORM):
            return math.inf
        if not decay:
            return steps * rate * self._client.clip
        return (self._client.clip / decay + sent) * math.expm1(growth)

    def _beyond_logits(self, update: Update, steps: int) -> Failure | None:
        sent, rate = update.task.objective.logits, getattr(update.task.objective, "learning_rate", math.inf)
        most = _ROOM * _ADAM_STEPS * steps * rate
        for before, after in zip(sent or (), update.logits or (), strict=True):
            for old, new in zip(before or (), after or (), strict=True):
                if abs(new) > _LARGEST_LOGIT:
                    return _outlier(update, f"it has a logit of {new:.1e}; at most 1000 is taken")
                if abs(new - old) > most:
                    return _outlier(
                        update,
                        f"it moves a logit by {abs(new - old):.1e}; {counted(steps, 'step')} of learning rate {rate:g} "
                        f"reach {most:.1e} at most",
                    )
        return None


def norm_of(tensors: Iterable[Tensor]) -> float:
    """Return the L2 norm of tensors together; the same on every machine, whose sums differ in their last bits."""
    # Ten times as fast as torch's own norm in float64.
    flat = (tensor.reshape(-1).double() for tensor in tensors)
    norm = math.sqrt(float(torch.stack([values.dot(values) for values in flat]).sum()))
    return float(f"{norm:.6g}")


def _outlier(update: Update, reason: str) -> Failure:
    return Failure(update.task, "outlier", reason, update.traffic)
