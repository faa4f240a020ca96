"""What the plans of all methods share: the draw of clients, the learning rate, and equal weights."""

from collections.abc import Callable, Mapping, Sequence

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.protocol import EngineError
from fedpareto.training.evaluation.evaluator import choose_probes
from fedpareto.training.local_objective import LocalObjective
from fedpareto.training.methods.protocol import MethodContext, SupernetMethod
from fedpareto.training.methods.schedules import learning_rate
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState


class WholeSupernet(SupernetMethod):
    """What methods share that train all of the supernet: they are probed by entries of the cache.

    Args:
        ground: what to decide with.
    """

    def __init__(self, ground: MethodContext) -> None:
        self._ground = ground
        self._probes = choose_probes(ground.entries, ground.config.evaluation.probes)

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return entries of the cache from its smallest to its largest."""
        del state
        return self._probes


def able_among(ground: MethodContext, available: Sequence[int], entry_of: Callable[[int], CacheEntry]) -> list[int]:
    """Return those of the ``available`` clients that can train the network ``entry_of`` says for them.

    Raises:
        EngineError: none of them can; others may come.
    """
    batch = ground.config.client.batch
    able = [client for client in available if ground.clients[client].runs(entry_of(client), batch)]
    if not able:
        raise EngineError(f"of {counted(len(available), 'client')} there, none can run what it is to train")
    return able


def rate_of(config: RunConfig, state: RunState) -> float:
    """Return the clients' learning rate in the round after ``state``."""
    done, total, _ = extent(config, state)
    return learning_rate(config.client.lr_schedule, config.client.lr, done, total)


def equal_plan(
    config: RunConfig,
    state: RunState,
    assigned: Mapping[int, CacheEntry],
    objectives: Mapping[int, LocalObjective] | None = None,
) -> RoundPlan:
    """Return a plan in which all clients weigh the same, but for their images."""
    weights = dict.fromkeys(assigned, 1.0)
    return RoundPlan(state.round + 1, rate_of(config, state), None, assigned, weights, objectives or {})
