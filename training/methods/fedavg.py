"""FedAvg (McMahan et al., 2017): one fixed network, clients weighing as many as their images."""

from collections.abc import Mapping, Sequence

from cache.entries import Entry
from training.answers import Answers, RoundPlan
from training.checkpoint import RunState
from training.methods.draws import drawn_clients, equal_plan
from training.methods.protocol import Ground
from training.methods.start import largest_for_all, named_entry


class FedAvg:
    """Trains the slices of one network.

    Args:
        ground: what to decide with.
        entry: the network.
        able: clients that can run it.
    """

    def __init__(self, ground: Ground, entry: Entry, able: Sequence[bool]) -> None:
        self._config, self._entry, self._able = ground.config, entry, able

    @property
    def by_examples(self) -> bool:
        """Weights are numbers of images, but in a private run, where they must not tell of them."""
        return not self._config.privacy.clip

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``, among the clients that can run the network."""
        able = [client for client in available if self._able[client]]
        drawn = drawn_clients(self._config, state, able or available)
        return equal_plan(self._config, state, dict.fromkeys(drawn, self._entry))

    def counted(self, state: RunState, answers: Answers) -> RunState:
        """Return ``state``: nothing else is kept."""
        del answers
        return state

    def probes(self, state: RunState) -> Sequence[Entry]:
        """Return the network."""
        del state
        return [self._entry]

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return none."""
        del state
        return {}


def fedavg(ground: Ground) -> FedAvg:
    """Return the method.

    Raises:
        UserError: the architecture cannot be read, is not in the space, or no client can run it.
    """
    path, field = ground.config.fedavg.architecture, "fedavg.architecture"
    entry = largest_for_all(ground, field, ground.entries) if path is None else named_entry(ground, field, path)
    return FedAvg(ground, entry, [capability.runs(entry, ground.config.client.batch) for capability in ground.clients])
