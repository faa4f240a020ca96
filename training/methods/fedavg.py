"""FedAvg (McMahan et al., 2017): one fixed network, clients weighing as many as their images."""

from collections.abc import Sequence
from pathlib import Path

from cache.entries import Entry, make_entries
from supernet.architecture import architecture_from_text
from supernet.errors import ArchitectureError, UserError
from supernet.files import read_text
from supernet.genes import encode
from supernet.units import format_quantity
from training.answers import Answers, RoundPlan
from training.checkpoint import RunState
from training.methods.draws import drawn_clients, equal_plan
from training.methods.protocol import Ground, SupernetMethod


class FedAvg(SupernetMethod):
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


def fedavg(ground: Ground) -> FedAvg:
    """Return the method.

    Raises:
        UserError: the architecture cannot be read, is not in the space, or no client can run it.
    """
    entry = _entry(ground)
    able = [capability.runs(entry, ground.config.client.batch) for capability in ground.clients]
    if not any(able):
        raise UserError(
            f"no client can run the {format_quantity(entry.macs)} MACs of fedavg.architecture "
            f"{ground.config.fedavg.architecture}; raise clients.max_macs or name a smaller network"
        )
    return FedAvg(ground, entry, able)


def _entry(ground: Ground) -> Entry:
    path, batch = ground.config.fedavg.architecture, ground.config.client.batch
    if path is not None:
        architecture = architecture_from_text(read_text(Path(path)), path)
        try:
            (entry,) = make_entries(ground.space, encode(ground.space, architecture)[None], ground.space.fitness)
        except ArchitectureError as error:
            raise ArchitectureError(f"fedavg.architecture {path}: {error}") from error
        return entry
    kinds = set(ground.clients)
    everywhere = [entry for entry in ground.entries if all(kind.runs(entry, batch) for kind in kinds)]
    if not everywhere:
        raise UserError(
            "no entry of the cache can be run by every client; name a network with --fedavg.architecture, or build a "
            "cache with a lower --flops-min"
        )
    return everywhere[-1]
