"""Multi-Krum: the mean of those clients whose updates lie nearest to others'."""

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.protocol import AggregatorFactory
from fedpareto.training.aggregation.robust import COMPARED, RobustAggregator, mean_of, shared_blocks
from fedpareto.training.aggregation.spool import MEMORY, SpooledUpdate
from fedpareto.training.config.run import RunConfig


class Krum(RobustAggregator):
    """Mean of the changes of the n − f clients whose changes lie nearest to those of others; f clients are left out.

    Multi-Krum (Blanchard, El Mhamdi, Guerraoui and Stainer, Machine Learning with Adversaries, NeurIPS 2017), with
    m = n − f as in their experiments. A client's score is the sum of the squared distances of its change to the
    n − f − 2 nearest others. Distances are taken over the part of the tensors that all clients of the round share, as
    changes of different slices cannot be compared elsewhere. They say nothing of what a client does outside of it:
    there the chosen clients' changes are clipped, as ``RobustAggregator`` says.

    **Breakdown point**: f hostile clients of n ≥ 2·f + 3. Then every chosen change lies, over the shared part, within
    √(n − f − 2) times the largest distance of two honest clients from some honest client's change, whatever is sent.
    Where fewer answer than 2·f + 3, as many are left out as that allows, ⌊(n − 3) / 2⌋.

    Args:
        space: the search space.
        tensors: those that are to be moved.
        hostile: f; a fifth of the clients that answer, rounded up, when left out.
        memory: most bytes of updates in memory.
    """

    def __init__(
        self,
        space: SearchSpace,
        tensors: Mapping[str, Tensor],
        *,
        hostile: int | None = None,
        memory: int = MEMORY,
    ) -> None:
        super().__init__(space, tensors, memory=memory)
        self._hostile = hostile

    @classmethod
    def configured(cls, config: RunConfig) -> AggregatorFactory:
        """Factory with the number of hostile clients that a run is to hold against."""
        return functools.partial(cls, hostile=config.server.hostile)

    def _chosen(self, updates: Sequence[SpooledUpdate], tensors: Tensors) -> list[int]:
        count = len(updates)
        if count < COMPARED:
            return list(range(count))
        hostile = tolerated(count, self._hostile)
        squares: Tensor = torch.zeros(count, count, dtype=torch.float64)
        for steps in shared_blocks(updates, tensors):
            # Exact differences: products of large values would cancel.
            exact = torch.cdist(steps, steps, compute_mode="donot_use_mm_for_euclid_dist").square()
            squares += exact.cpu()
        nearest = squares.fill_diagonal_(math.inf).sort(dim=1).values[:, : count - hostile - 2]
        scores = nearest.sum(1)
        return sorted(scores.argsort(stable=True)[: count - hostile].tolist())

    def _combined(self, steps: Tensor, covered: Tensor) -> Tensor:
        return mean_of(steps, covered)


def tolerated(clients: int, hostile: int | None) -> int:
    """Number of hostile clients that are left out of so many; ``hostile`` of them, or a fifth, are expected."""
    wanted = math.ceil(clients / 5) if hostile is None else hostile
    return max(0, min(wanted, (clients - 3) // 2))
