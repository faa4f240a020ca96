"""Client samplers: they draw the clients of a round from the available ones, uniformly unless another one is chosen."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from fedpareto.supernet.common.arguments import plain
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extensions import blamed, short
from fedpareto.training.config.registries import SAMPLERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.randomness import numpy_stream
from fedpareto.training.runs.state import RunState


class ClientSampler(Protocol):
    """Sampler of a round's clients; its draws depend on generator and state alone, so that a run can be resumed."""

    def __call__(
        self, available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState
    ) -> Sequence[int]:
        """Draw distinct clients of the round after ``state``.

        Args:
            available: clients that can take part, by number; at least one.
            per_round: number of clients to draw; all that are available if those are fewer.
            generator: generator of every random choice.
            state: state of the run so far.
        """


S = TypeVar("S", bound=ClientSampler)


def register_sampler(name: str) -> Callable[[S], S]:
    """Register a client sampler: decorates a function that ``clients.sampler`` may name while this process runs.

    Raises:
        UserError: another one has the name, it is no name, or what is decorated cannot be called as it would be.

    >>> import fedpareto as fp
    >>> @fp.register_sampler("lowest-numbers")
    ... def lowest_numbers(available, per_round, generator, state):
    ...     return list(available)[:per_round]
    """
    return SAMPLERS.registering(name)


def draw_clients(available: Sequence[int], per_round: int, generator: np.random.Generator) -> list[int]:
    """Return ``per_round`` distinct clients of those available, or all of them, in random order."""
    drawn = generator.choice(len(available), size=min(per_round, len(available)), replace=False)
    return [available[index] for index in drawn]


def uniform(available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState) -> Sequence[int]:
    """Uniform sampler: ``draw_clients`` whatever the state, so that all sets of clients are equally probable."""
    del state
    return draw_clients(available, per_round, generator)


def drawn_clients(config: RunConfig, state: RunState, available: Sequence[int]) -> list[int]:
    """Draw the clients of the round after ``state``, in random order.

    Raises:
        UserError: the run's sampler failed, or drew others than as many distinct clients as were asked for, of those
            that are there.
    """
    name, generator = config.clients.sampler, numpy_stream(config.seed, "clients", state.round + 1)
    sampler, count = SAMPLERS.get(name), min(config.clients.per_round, len(available))
    with blamed(f"the client sampler {name}"):
        given = sampler(list(available), config.clients.per_round, generator, state)
        drawn = _numbers(given)
    if drawn is None or len(drawn) != count or len(set(drawn)) < count or not set(drawn) <= set(available):
        raise UserError(
            f"the client sampler {name} drew {short(given if drawn is None else drawn)}; it must draw distinct "
            f"clients, {count} of {short(list(available))}, by number"
        )
    return drawn


def _numbers(given: object) -> list[int] | None:
    """Whole numbers that a sampler returned, of Python, numpy or torch; None if it returned anything else."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        return None
    values = [plain(value) for value in given]
    if any(isinstance(value, bool) or not hasattr(value, "__index__") for value in values):
        return None
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        # Tensors have the method, whatever they hold.
        return None
