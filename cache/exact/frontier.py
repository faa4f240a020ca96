"""The Pareto frontier of a search space: for every number of MACs the highest fitness that any network has.

It is computed exactly. Searches look networks up in it, and its certificate says that none of them can be beaten.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.dominance import pareto_front
from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.cache.exact.solver import EQUAL, MEMORY, rounding, solve_front
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Frontier:
    """Pareto frontier: the networks that no other one dominates, with at most their MACs and a higher fitness.

    Attributes:
        space: the space.
        fitness: weights of the fitness; networks with ``ρ > ρ0`` do not count.
        genes: (N, genes), canonical, by ascending MACs and fitness; none if no network has ``ρ ≤ ρ0``.
        macs: multiply–accumulates, (N,).
        values: fitness, (N,).
        extra: the limit on another cost that all networks here are within, in words; empty without one.
    """

    space: SearchSpace
    fitness: FitnessSettings
    genes: IntArray
    macs: IntArray
    values: FloatArray
    extra: str = ""

    def __repr__(self) -> str:
        if not len(self.macs):
            return f"Frontier(no network of {self.space.name} has ρ ≤ {self.fitness.max_effectiveness:g})"
        return (
            f"Frontier({counted(len(self.macs), 'network')} of {self.space.name}, {format_quantity(self.macs[0])} to "
            f"{format_quantity(self.macs[-1])} MACs, fitness {self.values[0]:.1f} to {self.values[-1]:.1f})"
        )

    def _repr_html_(self) -> str:
        from fedpareto.cache.plot import Fronts, front_title, fronts_html  # noqa: PLC0415 - a notebook draws

        return fronts_html(repr(self), front_title(self.space), Fronts(self))

    @checked
    def entry(self, index: int) -> CacheEntry:
        """Return a point as an entry."""
        (entry,) = make_entries(self.space, self.genes[[index]], self.fitness)
        return entry

    def within(self, least: float | None, most: float | None) -> "Frontier":
        """Return the part of the frontier between two numbers of MACs, both included; None is no bound."""
        kept = (self.macs >= (least or 0)) & (self.macs <= (math.inf if most is None else most))
        return dataclasses.replace(self, genes=self.genes[kept], macs=self.macs[kept], values=self.values[kept])

    @checked
    def best_within(self, macs: float | None) -> int | None:
        """Return the index of the fittest network of at most ``macs`` (of any, if None), or None if there is none."""
        count = len(self.macs) if macs is None else int(np.searchsorted(self.macs, macs, side="right"))
        return count - 1 if count else None

    def cheapest_reaching(self, fitness: float) -> int | None:
        """Return the index of the network of fewest MACs with at least this fitness, or None if none reaches it."""
        index = int(np.searchsorted(self.values, fitness, side="left"))
        return index if index < len(self.values) else None

    def gaps(self, macs: ArrayLike, fitness: ArrayLike) -> FloatArray:
        """Return the optimality gaps of networks of given ``macs`` and ``fitness``, (N,): optimum less fitness."""
        optima = self.values[np.searchsorted(self.macs, macs, side="right") - 1]
        gaps: FloatArray = np.maximum(0.0, optima - np.asarray(fitness))
        return gaps

    def certificate(self) -> str:
        """Return the certificate of optimality, one sentence."""
        vectors = float(np.prod(gene_layout(self.space).sizes.astype(float)))
        extra = f" and {self.extra}" if self.extra else ""
        return (
            f"of all networks of {self.space.name} ({vectors:.2g} gene vectors) with effectiveness ρ ≤ "
            f"{self.fitness.max_effectiveness}{extra}, none has at most the MACs of one of these "
            f"{len(self.macs):,} and a higher fitness (to {EQUAL:g})"
        )


def frontier_of(space: SearchSpace, fitness: FitnessSettings, genes: IntArray, extra: str = "") -> Frontier:
    """Return the frontier among the networks of ``genes``, (N, genes), which are scored here."""
    scores = score(space, genes, fitness)
    feasible = np.flatnonzero(scores.feasible)
    order = feasible[pareto_front(scores.macs[feasible], scores.fitness[feasible])]
    # The solver adds the same terms in another order. Points that rise by rounding alone are no frontier points: the
    # cheaper one before them is as fit.
    kept = order[_rising(scores.fitness[order])]
    return Frontier(space, fitness, genes[kept], scores.macs[kept], scores.fitness[kept], extra)


def _rising(values: FloatArray) -> list[int]:
    """Return the indices of ascending values that exceed the last kept one by more than rounding."""
    kept: list[int] = []
    for index, value in enumerate(values):
        if not kept or value - values[kept[-1]] > rounding(value):
            kept.append(index)
    return kept


def exact_frontier(
    space: SearchSpace,
    fitness: FitnessSettings,
    extra: AdditiveCost | None = None,
    listener: ProgressListener = SILENT,
    memory: int = MEMORY,
) -> Frontier:
    """Compute the frontier of a space, among its networks within the limit of one ``extra`` cost if there is one.

    Raises:
        SpaceTooLargeError: it takes more than ``memory`` bytes.
    """
    # Complete because ``solve_front`` sweeps the first cost: for every network x of the space within the limits it
    # returns a y with MACs(y) ≤ MACs(x) and F(y) ≥ F(x), up to rounding (see ``fedpareto.cache.exact.solver``).
    costs = [count_cost(space, "macs")] + ([extra] if extra else [])
    genes = solve_front(space, fitness, costs, listener, memory)
    return frontier_of(space, fitness, genes, extra.words() if extra else "")
