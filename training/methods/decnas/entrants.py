"""Assignment of clients to candidates: at the start of an iteration, and again after some candidates are dropped."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.arrays import IntArray
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.methods.decnas.candidates import Candidate
from fedpareto.training.methods.decnas.groups import placed
from fedpareto.training.methods.decnas.race import Racer


@dataclasses.dataclass(frozen=True)
class Clients:
    """Clients of the federation, as far as their grouping depends on them.

    Attributes:
        capabilities: capability of every client.
        labels: every client's number of images of each class, shape (clients, classes).
        batch_size: number of images of a local step.
    """

    capabilities: Sequence[Capability]
    labels: IntArray
    batch_size: int

    @functools.cached_property
    def images(self) -> list[int]:
        """Number of training images of every client."""
        return [int(images) for images in self.labels.sum(axis=1)]

    def able(self, entry: CacheEntry) -> list[int]:
        """Return the clients that have images and can train a network."""
        runs = {kind: kind.runs(entry, self.batch_size) for kind in set(self.capabilities)}
        return [client for client, images in enumerate(self.images) if images and runs[self.capabilities[client]]]

    def assign(self, found: Sequence[Candidate]) -> list[Racer]:
        """Return the candidates with their groups.

        Every group has a client. With fewer clients than candidates, only the candidates nearest to the target stay:
        those that were lowered least. A candidate is also left out if its only clients are the last ones of other
        groups.
        """
        runs = self._runs(found)
        clients = [client for client in range(len(runs)) if runs[client].any()]
        nearest = sorted(range(len(found)), key=lambda index: -found[index].entry.macs)[: len(clients)]
        kept = [found[index] for index in sorted(nearest)]
        groups = placed([[] for _ in kept], clients, self.labels, self._runs(kept))
        return [Racer(one, tuple(sorted(group))) for one, group in zip(kept, groups, strict=True) if group]

    def regrouped(self, racers: Sequence[Racer]) -> list[Racer]:
        """Return the racers, with the clients of dropped ones moved to the groups of those that still train."""
        free = [client for racer in racers if racer.status == "dropped" for client in racer.clients]
        training = [racer for racer in racers if racer.status == "training"]
        if not free or not training:
            return list(racers)
        runs = self._runs([racer.candidate for racer in training])
        groups = placed([racer.clients for racer in training], free, self.labels, runs)
        moved = {racer.name: tuple(sorted(group)) for racer, group in zip(training, groups, strict=True)}
        return [
            dataclasses.replace(
                racer, clients=() if racer.status == "dropped" else moved.get(racer.name, racer.clients)
            )
            for racer in racers
        ]

    def _runs(self, found: Sequence[Candidate]) -> NDArray[np.bool_]:
        """Return a matrix (clients, candidates), true where the client can train the candidate."""
        runs = np.zeros((len(self.capabilities), len(found)), dtype=np.bool_)
        for index, candidate in enumerate(found):
            runs[self.able(candidate.entry), index] = True
        return runs
