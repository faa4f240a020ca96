"""Aggregators: they merge the clients' updates into the supernet; the weighted mean unless another one is chosen."""

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
    """Aggregator: takes the updates of a round one at a time, then moves the tensors. The next round uses it again.

    Later clients overwrite an update's tensors: an aggregator copies what it needs of them, or adds it up.
    """

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's trained ``tensors``, which belong to ``architecture``, with ``weight`` > 0."""

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        """Move ``tensors`` in place to the aggregate of the updates, and forget the updates.

        Args:
            tensors: the supernet's tensors, or a branch's, whose slices the clients trained
                (``fedpareto.supernet.slices``); entries that no client has had keep their bytes.
            velocity: velocity of the server's momentum, moved in place; None without momentum.
            server: the server's learning rate and momentum; ``AVERAGING`` moves the tensors all the way.
        """


#: Makes the aggregator of a supernet, or of a network that trains beside it, of the space and the tensors to be moved.
#: One with settings has ``configured``, which is given a run's configuration and returns the factory of that run.
AggregatorFactory = Callable[[SearchSpace, Mapping[str, Tensor]], Aggregator]

A = TypeVar("A", bound=AggregatorFactory)


def register_aggregator(name: str) -> Callable[[A], A]:
    """Register an aggregator: decorates a class, or another factory, that ``server.aggregation`` may name.

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
    """Aggregator that a run names, without any updates.

    Raises:
        UserError: there is none of the name, or it cannot be loaded.
    """
    factory = AGGREGATORS.get(config.server.aggregation)
    configured: Callable[[RunConfig], AggregatorFactory] | None = getattr(factory, "configured", None)
    made: Aggregator = (factory if configured is None else configured(config))(space, tensors)
    return made
