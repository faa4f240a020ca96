"""FedAvg (McMahan et al., 2017): one fixed network, clients weighing as many as their images."""

from collections.abc import Mapping, Sequence

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture_file import ARCHITECTURE, architecture_text
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.methods.initial_network import largest_for_all, named_entry
from fedpareto.training.methods.plans import able_among, equal_plan
from fedpareto.training.methods.protocol import MethodContext, SupernetMethod
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.runs.state import RunState


class FedAvg(SupernetMethod):
    """Trains the slices of one network.

    Args:
        ground: what to decide with.
        entry: the network.
    """

    def __init__(self, ground: MethodContext, entry: CacheEntry) -> None:
        self._ground, self._entry = ground, entry

    @property
    def weight_by_examples(self) -> bool:
        """Weights are numbers of images, but in a private run, where they must not tell of them."""
        return not self._ground.config.privacy.clip

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``, among the clients that can run the network.

        Raises:
            EngineError: none of them is there.
        """
        config = self._ground.config
        drawn = drawn_clients(config, state, able_among(self._ground, available, lambda client: self._entry))
        return equal_plan(config, state, dict.fromkeys(drawn, self._entry))

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return the network."""
        del state
        return [self._entry]

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return the network."""
        del state
        return {ARCHITECTURE: architecture_text(self._entry.architecture)}


def fedavg(ground: MethodContext) -> FedAvg:
    """Return the method.

    Raises:
        UserError: the architecture cannot be read, is not in the space, or no client can run it.
    """
    path, field = ground.config.fedavg.architecture, "fedavg.architecture"
    entry = largest_for_all(ground, field, ground.entries) if path is None else named_entry(ground, field, path)
    return FedAvg(ground, entry)
