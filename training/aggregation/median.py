"""Coordinate-wise median of updates."""

import torch
from torch import Tensor

from fedpareto.training.aggregation.robust import RobustAggregator, sorted_steps


class Median(RobustAggregator):
    """Median of every entry's changes over the clients that cover it; of an even number the mean of the middle two.

    Coordinate-wise median (Yin, Chen, Kannan and Bartlett, Byzantine-Robust Distributed Learning, ICML 2018).

    **Breakdown point**: less than half of the clients that cover an entry. While so few are hostile there, whatever
    they send, the step lies between the least and the greatest honest change (clipped where ``RobustAggregator``
    clips). Beyond it the step of an entry that all clients cover is theirs, and that of any other is bounded as is said
    there.
    """

    def _combined(self, steps: Tensor, covered: Tensor) -> Tensor:
        ordered, clients = sorted_steps(steps, covered)
        # Of an odd number the two are one.
        middle = torch.stack([(clients - 1).clamp(min=0) // 2, clients // 2], dim=1)
        return ordered.gather(1, middle).mean(1)
