"""Check of a merged round: weights that are finite and of a possible size, and a loss that has not exploded.

A round that fails it is not taken over: the round before is kept, and the run ends with the cause. Where that round has
no checkpoint yet, its weights are copied for as long as the merge takes, which costs as much memory as they have.
"""

import math
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.tensor_files import first_not_finite
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.aggregation.update_bounds import norm_of
from fedpareto.training.evaluation.evaluator import Evaluator
from fedpareto.training.rounds.attempt import tell_lost
from fedpareto.training.rounds.checkpoints import RoundCheckpoints
from fedpareto.training.rounds.failures import refused_round, refused_withheld
from fedpareto.training.rounds.merging import merge
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState

#: Times that a loss may rise in one round. Honest runs have not been seen to reach 5, also at five times their rate.
_EXPLODED = 50.0

#: Times that the norm of the supernet may grow in one round. Honest runs have not been seen to reach 2.
_GROWN = 10.0

#: Clients whose median loss is believed.
_ENOUGH = 3

#: No weight of a network that trains is above it.
_LARGEST_WEIGHT = 1e6


class MergeCheck:
    """Check of a run's merged rounds, one after the other.

    Args:
        run: parts of the run.
        checkpoints: its checkpoints.
    """

    def __init__(self, run: Run, checkpoints: RoundCheckpoints) -> None:
        self._run, self._checkpoints = run, checkpoints
        self._loss: float | None = None
        self._norm: float | None = None

    def merge(self, state: RunState, results: RoundResults, models: Models) -> None:
        """Move ``models``, in place, by a round after ``state``.

        Raises:
            UserError: the round is refused, and the one before is kept; it says which clients have part in it.
        """
        run = self._run
        if self._norm is None:
            self._norm, self._loss = norm_of(models.supernet.values()), self._loss_of(state, models)
        copied = None if self._checkpoints.has(state) else models.moved(_cloned)
        merge(run, results, models)
        problem = _spoiled(results, models)
        if problem is None and not run.config.privacy.clip:
            # Clipped updates spoil nothing, and noise is as large as it was asked for.
            problem = self._grown(models) or self._exploded(state, results, models)
        if problem is None:
            return
        tell_lost(run, results)
        kept = self._checkpoints.keep(state, copied or models)
        if run.config.privacy.withheld:
            raise UserError(refused_withheld(run.folder, results.plan.number, problem, kept))
        raise UserError(refused_round(run.folder, results, problem, run.config.client.lr, kept))

    def _grown(self, models: Models) -> str | None:
        """Return the words for weights that have grown as no training makes them grow, or None."""
        before, self._norm = self._norm or 0.0, norm_of(models.supernet.values())
        if self._norm <= _GROWN * max(before, 1.0):
            return None
        return f"the norm of all weights has risen from {before:.2g} to {self._norm:.2g}"

    def _exploded(self, state: RunState, results: RoundResults, models: Models) -> str | None:
        """Return the words for a loss that has exploded, or None."""
        before, after, whose = self._loss, self._loss_of(state, models), "the supernet's loss"
        self._loss = after
        if after is None:
            # Only clients have images: their losses tell of the supernet that they were sent. Fewer than three could
            # end a run by what one of them says.
            if len(results.accepted) < _ENOUGH:
                return None
            before = statistics.median([one.loss for one in state.past] or [0.0])
            after, whose = results.memory.loss, "the loss of the median client"
        most = _EXPLODED * max(before or 0.0, math.log(self._run.space.classes), 1.0)
        if after <= most:
            return None
        return f"{whose} has risen from {before:.2g} to {after:.2g}"

    def _loss_of(self, state: RunState, models: Models) -> float | None:
        """Return the loss of the largest probe; None where the server has no images."""
        run = self._run
        if not isinstance(run.evaluator, Evaluator):
            return None
        return run.evaluator.loss(models.supernet, run.method.probes(state)[-1].architecture)


def _spoiled(results: RoundResults, models: Models) -> str | None:
    """Return the words for merged weights that no training can have, or None."""
    for tensors in _merged(results, models):
        name = first_not_finite(tensors)
        if name is not None:
            return f"{name} has NaN or infinity"
        # A GPU is waited for once.
        largest = torch.stack([tensor.abs().max() for tensor in tensors.values()]).tolist()
        size, name = max(zip(largest, tensors, strict=True))
        if size > _LARGEST_WEIGHT:
            return f"{name} has a weight of {size:.1e}, and no network that trains has above 1e6"
    return None


def _merged(results: RoundResults, models: Models) -> Iterator[Tensors]:
    yield models.supernet
    if models.velocity is not None:
        yield models.velocity
    for name in results.branches:
        yield models.tensors(name)


def _cloned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
