"""Aggregators: they merge the clients' updates into the supernet; the weighted mean unless another one is chosen."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extensions import blamed, short
from fedpareto.supernet.networks.tensor_files import first_not_finite
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
        UserError: another one has the name, it is no name, or what is decorated cannot be called as it would be.

    >>> import fedpareto as fp
    >>> from fedpareto.training.aggregation.weighted_average import WeightedAverage
    >>> @fp.register_aggregator("plain")
    ... class Plain(WeightedAverage):
    ...     pass
    """
    return AGGREGATORS.registering(name)


def new_aggregator(config: RunConfig, space: SearchSpace, tensors: Mapping[str, Tensor]) -> Aggregator:
    """Aggregator that a run names, without any updates. One of somebody else is held to what aggregators promise.

    Raises:
        UserError: there is none of the name, it cannot be loaded or made, or what is made is none.
    """
    name = config.server.aggregation
    factory = AGGREGATORS.get(name)
    configured: Callable[[RunConfig], AggregatorFactory] | None = getattr(factory, "configured", None)
    if not AGGREGATORS.brought(name):
        own: Aggregator = (factory if configured is None else configured(config))(space, tensors)
        return own
    what = f"the aggregator {name}"
    with blamed(what):
        made = (factory if configured is None else configured(config))(space, tensors)
    for method in ("add", "write_mean"):
        if not callable(getattr(made, method, None)):
            raise UserError(f"{what} is made as {short(made)}, which has no method {method}; an aggregator has it")
    return CheckedAggregator(what, made)


class CheckedAggregator:
    """Aggregator of somebody else, of which everything is checked that the next round, and a checkpoint, rely on.

    Args:
        what: words that name it in errors.
        aggregator: the aggregator itself.
    """

    def __init__(self, what: str, aggregator: Aggregator) -> None:
        self._what, self._aggregator = what, aggregator

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's trained tensors.

        Raises:
            UserError: the aggregator failed.
        """
        with blamed(self._what):
            self._aggregator.add(architecture, tensors, weight)

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        """Move ``tensors`` in place.

        Raises:
            UserError: the aggregator failed, or left tensors of other names, shapes or types, or that are not finite.
        """
        groups = {"tensors": tensors} if velocity is None else {"tensors": tensors, "velocity": velocity}
        before = {name: _kinds(group) for name, group in groups.items()}
        move: Callable[..., object] = self._aggregator.write_mean
        with blamed(self._what):
            returned = move(tensors, velocity, server)
        if returned is not None:
            raise UserError(
                f"{self._what} returned {short(returned)} from write_mean; it must move the tensors in place, and "
                "return nothing"
            )
        for name, group in groups.items():
            fault = _fault(before[name], group)
            if fault is not None:
                raise UserError(f"{self._what} left {name} of which {fault}; the last checkpoint is as it was")


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Shape, type and place of every tensor, in words."""
    return {name: _kind(tensor) for name, tensor in tensors.items()}


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return short(value)
    return f"{value.dtype} {tuple(value.shape)} on {value.device}"


def _fault(before: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str | None:
    """Fault of tensors that were of other kinds ``before``, or are not finite; None if there is none."""
    for name in sorted({*before, *tensors}, key=str):
        if name not in tensors:
            return f"{name} is missing"
        if name not in before:
            return f"{short(name)} is new"
        if _kind(tensors[name]) != before[name]:
            return f"{name} is {_kind(tensors[name])} instead of {before[name]}"
    unusable = first_not_finite(tensors)
    return None if unusable is None else f"{unusable} holds NaN or infinity"
