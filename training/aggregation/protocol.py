"""What makes the supernet of clients' updates: the weighted average, unless another aggregator is chosen."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.weighted_average import AVERAGING, ServerStep
from fedpareto.training.config.registries import AGGREGATORS
from fedpareto.training.config.run import RunConfig


class Aggregator(Protocol):
    """Takes the updates of a round one at a time, then moves the tensors; it is used again in the next round.

    An update's tensors are overwritten by those of later clients: what is needed of them is copied or added up.
    """

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's trained ``tensors``, which belong to ``architecture``, with ``weight`` > 0."""

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        """Move ``tensors`` in place to what the updates come to, and forget these.

        Args:
            tensors: what the clients' were slices of (``fedpareto.supernet.slices``); entries that no client has had
                keep their bytes.
            velocity: of the server's momentum, moved in place; None without momentum.
            server: how far the server goes; ``AVERAGING`` goes all the way.
        """


#: Makes the aggregator of a supernet, or of a network that trains beside it, of the space and the tensors to be moved.
AggregatorFactory = Callable[[SearchSpace, Mapping[str, Tensor]], Aggregator]

A = TypeVar("A", bound=AggregatorFactory)


def register_aggregator(name: str) -> Callable[[A], A]:
    """Register an aggregator: decorates a class, or another factory, that ``server.aggregator`` may name.

    It is known for as long as this process runs.

    Raises:
        UserError: another one has the name.

    >>> import fedpareto as fp
    >>> from fedpareto.training.aggregation.weighted_average import WeightedAverage
    >>> @fp.register_aggregator("plain")
    ... class Plain(WeightedAverage):
    ...     pass
    """

    def registered(factory: A) -> A:
        AGGREGATORS.register(name, factory)
        return factory

    return registered


def new_aggregator(config: RunConfig, space: SearchSpace, tensors: Mapping[str, Tensor]) -> Aggregator:
    """The aggregator that a run names, empty.

    Raises:
        UserError: there is none of the name, or it cannot be loaded.
    """
    made: Aggregator = AGGREGATORS.get(config.server.aggregator)(space, tensors)
    return made
