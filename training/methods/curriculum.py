"""Curriculum of MaxNet methods: the architecture that each client of a round trains.

Every round assigns the largest network first, then the smallest, then all others, as the published code does. The
largest goes to the client that has had it least often. Where clients are unequal it goes to the most capable client of
the round, which trains the largest network that it can run. The smallest goes to the one of the others that has had it
least often. The rest is drawn from the cache by ``pareto`` (DeepFedNAS), or at random from the space in the cache's
range of MACs by ``sandwich`` (SuperFedNAS).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.cache.nsga2.sampling import draw_within
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.config.methods import CacheDraw
from fedpareto.training.runs.state import Counts

Curriculum = Literal["pareto", "sandwich"]

_MOST_DRAWS = 20

Draw = Callable[[int, np.random.Generator], CacheEntry]


class Assigner:
    """Assigner that gives every client of a round an architecture it can run.

    Args:
        name: ``pareto`` or ``sandwich``.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        clients: capability of every client.
        batch_size: number of images of a local step, for the memory a network needs.
        cache_draw: distribution of the draws from the cache by ``pareto``.

    Raises:
        UserError: a client cannot run even the smallest entry.
    """

    def __init__(
        self,
        name: Curriculum,
        space: SearchSpace,
        entries: Sequence[CacheEntry],
        clients: Sequence[Capability],
        batch_size: int,
        cache_draw: CacheDraw = "balanced",
    ) -> None:
        self._space, self._batch_size, self._cache_draw = space, batch_size, cache_draw
        self._entries = entries
        self._clients = clients
        self._runnable = runnable_entries(entries, clients, batch_size)
        draws: dict[Curriculum, Draw] = {"pareto": self._draw_from_cache, "sandwich": self._draw_from_space}
        self._draw = draws[name]

    def assign(self, drawn: Sequence[int], counts: Counts, generator: np.random.Generator) -> list[CacheEntry]:
        """Return the architecture of each of the ``drawn`` clients, in their order.

        Ties of counts go to the client drawn first, which is random. A single client draws freely.
        """
        assigned: dict[int, CacheEntry] = {}
        if len(drawn) > 1:
            # Only clients of equal reach are compared by their counts, so that these are of one and the same network.
            reach = max(self._largest(client).macs for client in drawn)
            ablest = [client for client in drawn if self._largest(client).macs == reach]
            largest = min(ablest, key=lambda client: counts.largest[client])
            assigned[largest] = self._largest(largest)
            rest = [client for client in drawn if client != largest]
            assigned[min(rest, key=lambda client: counts.smallest[client])] = self._entries[0]
        return [assigned.get(client) or self._draw(client, generator) for client in drawn]

    def is_smallest(self, entry: CacheEntry) -> bool:
        """Return True if ``entry`` is the cache's smallest."""
        return entry.architecture == self._entries[0].architecture

    def is_largest(self, client: int, entry: CacheEntry) -> bool:
        """Return True if ``entry`` is the largest of the cache that a client can run."""
        return entry.architecture == self._largest(client).architecture

    def _largest(self, client: int) -> CacheEntry:
        return self._runnable[client][-1]

    def _draw_from_cache(self, client: int, generator: np.random.Generator) -> CacheEntry:
        runnable = self._runnable[client]
        if self._cache_draw == "uniform":
            return runnable[int(generator.integers(len(runnable)))]
        shares = 1 / np.array([entry.macs for entry in runnable])
        return runnable[int(generator.choice(len(runnable), p=shares / shares.sum()))]

    def _draw_from_space(self, client: int, generator: np.random.Generator) -> CacheEntry:
        """Draw within the MACs of the client's entries; return the smallest entry if it can run no draw."""
        limits = Limits(macs=self._largest(client).macs, min_macs=self._entries[0].macs)
        for _ in range(_MOST_DRAWS):
            try:
                architecture = draw_within(self._space, limits, generator)
            except BudgetError:
                break
            entry = make_entry(self._space, architecture)
            if self._clients[client].runs(entry, self._batch_size):
                return entry
        return self._entries[0]


def runnable_entries(
    entries: Sequence[CacheEntry], clients: Sequence[Capability], batch_size: int
) -> list[Sequence[CacheEntry]]:
    """Return the entries that every client can run, by ascending MACs.

    Raises:
        UserError: a client cannot run even the smallest entry.
    """
    # Clients of equal capability share a list, so that 10,000 clients cost no more than one of each kind.
    by_capability = {kind: [entry for entry in entries if kind.runs(entry, batch_size)] for kind in set(clients)}
    for client, kind in enumerate(clients):
        if not by_capability[kind] or by_capability[kind][0] is not entries[0]:
            raise UserError(
                f"client {client} can run {kind}, less than the smallest cache entry ({entries[0].macs:,} MACs); raise "
                f"its limit or build a cache with a lower {option('flops-min')}"
            )
    return [by_capability[kind] for kind in clients]
