"""Predictor-free search: the architecture of highest analytic fitness within limits. No torch, no training."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cache.entries import Entry, make_entries
from cache.exact import SpaceTooLargeError, solve_best
from cache.frontier import ROUNDING, Frontier
from cache.infeasible import refusal
from cache.kept import find_frontier
from cache.limits import Limits
from cache.progress import SILENT, Listener
from fitness.score import score
from supernet.genes import encode_all
from supernet.space import FitnessSettings, SearchSpace


@dataclasses.dataclass(frozen=True)
class Answer:
    """The architecture a search found.

    Attributes:
        entry: the architecture with its costs and fitness.
        solver: what found it.
        frontier: the frontier of the space, if it could be computed.
    """

    entry: Entry
    solver: Literal["exact", "nsga2"]
    frontier: Frontier | None

    @property
    def certified(self) -> bool:
        """Whether it is proven that no network within the limits has a higher fitness."""
        return self.solver == "exact"

    @property
    def next_better(self) -> Entry | None:
        """Of the networks of higher fitness the one of fewest MACs, if one is known.

        Where the answer is certified it lies beyond the limits.
        """
        if self.frontier is None:
            return None
        above = self.entry.fitness + ROUNDING * max(1.0, abs(self.entry.fitness))
        index = self.frontier.cheapest_reaching(float(np.nextafter(above, np.inf)))
        return None if index is None else self.frontier.entry(index)


def search(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    known: Sequence[Entry] = (),
    seed: int = 0,
    listener: Listener = SILENT,
) -> Answer:
    """Return the fittest architecture within upper ``limits`` and ``ρ ≤ ρ0``.

    Exactly, from the space's kept frontier or by solving it under the limits; only a space too large for that
    is searched with pymoo, from the ``known`` entries and whatever part of the frontier there is, and the
    listener is told.

    Raises:
        BudgetError: no network meets the limits; it names the limit that binds and the nearest network.
    """
    frontier, start = None, encode_all(space, [entry.architecture for entry in known])
    try:
        frontier = find_frontier(space, fitness, listener)
        return Answer(search_exactly(frontier, limits, listener), "exact", frontier)
    except SpaceTooLargeError as error:
        from search.evolution import DEFAULT_SETTINGS, evolve  # noqa: PLC0415 - the exact search does without pymoo

        listener.remark(f"{error}; searching with NSGA-II, without a certificate")
        start = start if frontier is None else np.concatenate([frontier.genes, start])
        settings = dataclasses.replace(DEFAULT_SETTINGS, seed=seed)
        return Answer(evolve(space, fitness, limits, start, settings), "nsga2", frontier)


def search_exactly(frontier: Frontier, limits: Limits, listener: Listener = SILENT) -> Entry:
    """Return the fittest architecture within upper ``limits`` and ``ρ ≤ ρ0``, proven to be so.

    The frontier answers at once if its point is within the limits; otherwise the space is solved under them.

    Raises:
        BudgetError: no network meets the limits; it names the limit that binds and the nearest network.
        SpaceTooLargeError: the space is too large to be solved under the limits.
    """
    space, fitness = frontier.space, frontier.fitness
    index = frontier.best_within(limits.macs)
    if index is None:
        raise refusal(space, fitness, limits)
    genes = frontier.genes[[index]]
    if (limits.violations(space, genes, score(space, genes)) > 0).any():
        genes = solve_best(space, fitness, limits.additive(space), listener)
    if not len(genes):
        raise refusal(space, fitness, limits)
    (entry,) = make_entries(space, genes, fitness)
    return entry
