"""Clipped mean of updates: each client's change is clipped to the median norm of the round."""

from torch import Tensor

from fedpareto.training.aggregation.robust import RobustAggregator, mean_of


class Clipped(RobustAggregator):
    """Mean of clipped changes: nobody moves the supernet further than the median client does.

    Clipping of Karimireddy, He and Jaggi (Learning from History for Byzantine Robust Optimization, ICML 2021), around
    the supernet that the clients were sent, its radius the median of the round's norms, as ``RobustAggregator`` takes
    them.

    **Breakdown point**: the radius is at most the largest honest norm while no more than half of the round's clients
    are hostile. Their influence is bounded then, not gone: f hostile ones of an entry's k clients have f / k of its
    mean, each round, and each of them the norm of the radius.
    """

    _clips_all = True

    def _combined(self, steps: Tensor, covered: Tensor) -> Tensor:
        return mean_of(steps, covered)
