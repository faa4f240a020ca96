"""Coordinate-wise trimmed mean of updates."""

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.protocol import AggregatorFactory
from fedpareto.training.aggregation.robust import COMPARED, RobustAggregator, sorted_steps
from fedpareto.training.aggregation.spool import MEMORY
from fedpareto.training.config.run import RunConfig


class Trimmed(RobustAggregator):
    """Mean of every entry's changes without the least and the greatest, over the clients that cover it.

    Coordinate-wise β-trimmed mean (Yin, Chen, Kannan and Bartlett, Byzantine-Robust Distributed Learning, ICML 2018).
    Of k clients of an entry ⌊``trim``·k⌋ are left out at either end, at least one where k is three or more, none where
    it is less.

    **Breakdown point**: as many hostile clients of an entry as are left out at one end of it. While there are no more,
    whatever they send, the step lies between the least and the greatest honest change (clipped where
    ``RobustAggregator`` clips). Beyond it the step of an entry that all clients cover is theirs in part, and that of
    any other is bounded as is said there.

    Args:
        space: the search space.
        tensors: those that are to be moved.
        trim: share of an entry's clients that is left out at either end, below a half.
        memory: most bytes of updates in memory.
    """

    def __init__(
        self, space: SearchSpace, tensors: Mapping[str, Tensor], *, trim: float = 0.2, memory: int = MEMORY
    ) -> None:
        super().__init__(space, tensors, memory=memory)
        self._trim = trim

    @classmethod
    def configured(cls, config: RunConfig) -> AggregatorFactory:
        """Factory with the share that a run is to trim."""
        return functools.partial(cls, trim=config.server.trim)

    def _combined(self, steps: Tensor, covered: Tensor) -> Tensor:
        ordered, clients = sorted_steps(steps, covered)
        counts = range(len(steps) + 1)
        left_out = torch.tensor([trimmed_count(count, self._trim) for count in counts]).to(steps.device)[clients]
        place = torch.arange(len(steps), device=steps.device)
        kept = (place >= left_out[:, None]) & (place < (clients - left_out)[:, None])
        return ordered.where(kept, 0.0).sum(1) / (clients - 2 * left_out)


def trimmed_count(clients: int, trim: float) -> int:
    """Number of an entry's clients that are left out at either end."""
    if clients < COMPARED:
        return 0
    # Products such as 0.29·100 fall short of the whole number they stand for; of a share near a half somebody is left.
    return min(max(1, math.floor(trim * clients + 1e-9)), (clients - 1) // 2)
