"""Who takes part in a round: samplers draw clients of those that are there, uniformly unless another one is chosen."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.registries import SAMPLERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.randomness import numpy_stream
from fedpareto.training.runs.state import RunState


class ClientSampler(Protocol):
    """Draws the clients of a round; draws alike for the same generator and state, so that a run can be resumed."""

    def __call__(
        self, available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState
    ) -> Sequence[int]:
        """Distinct clients of the round after ``state``.

        Args:
            available: clients that can take part, by number; at least one.
            per_round: so many are wanted; fewer where there are fewer.
            generator: of every random choice.
            state: of the run, with what it has done so far.
        """


S = TypeVar("S", bound=ClientSampler)


def register_sampler(name: str) -> Callable[[S], S]:
    """Register a client sampler: decorates a function that ``clients.sampler`` may name while this process runs.

    Raises:
        UserError: another one has the name.

    >>> import fedpareto as fp
    >>> @fp.register_sampler("lowest-numbers")
    ... def lowest_numbers(available, per_round, generator, state):
    ...     return list(available)[:per_round]
    """

    def registered(sampler: S) -> S:
        SAMPLERS.register(name, sampler)
        return sampler

    return registered


def draw_clients(available: Sequence[int], per_round: int, generator: np.random.Generator) -> list[int]:
    """Return ``per_round`` distinct clients of those available, or all of them, in random order."""
    drawn = generator.choice(len(available), size=min(per_round, len(available)), replace=False)
    return [available[index] for index in drawn]


def uniform(available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState) -> Sequence[int]:
    """``draw_clients``, whatever the state: all sets of clients are drawn alike."""
    del state
    return draw_clients(available, per_round, generator)


def drawn_clients(config: RunConfig, state: RunState, available: Sequence[int]) -> list[int]:
    """Return the clients of the round after ``state``, in random order.

    Raises:
        UserError: the run's sampler drew none, one twice, or one that is not there.
    """
    name, generator = config.clients.sampler, numpy_stream(config.seed, "clients", state.round + 1)
    drawn = [int(client) for client in SAMPLERS.get(name)(available, config.clients.per_round, generator, state)]
    if not drawn or len(set(drawn)) < len(drawn) or not set(drawn) <= set(available):
        raise UserError(f"the client sampler {name} drew {drawn}; it must draw distinct clients of {list(available)}")
    return drawn
