"""The pymoo solver: NSGA-II over integer genes, with an archive of everything non-dominated it has seen.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002).
"""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.limits import Limits, check_reachable
from fedpareto.cache.dominance import pareto_front
from fedpareto.cache.entries import CacheEntry, evenly_spaced, make_entries
from fedpareto.cache.exact.frontier import Frontier
from fedpareto.cache.exact.solver import rounding
from fedpareto.cache.nsga2.local_search import neighbours, trades
from fedpareto.cache.nsga2.sampling import ladder
from fedpareto.cache.objectives import Objectives
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError, UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace

if TYPE_CHECKING:
    from pymoo.algorithms.moo.nsga2 import NSGA2

#: Rounds of local search at most, and networks each looks at.
_POLISHES, _POLISHED = 20, 500_000


@dataclasses.dataclass(frozen=True)
class Nsga2Settings:
    """Settings of NSGA-II: the size of its population and the length of the search.

    Attributes:
        population: individuals a generation.
        generations: generations.
        seed: seed of every draw.
    """

    population: int = 200
    generations: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("population", 10), ("generations", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")


class Solution(NamedTuple):
    """Entries that NSGA-II has found, by ascending MACs, and how many generations that took."""

    entries: list[CacheEntry]
    generations: int


def solve_nsga2(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    entries: int,
    settings: Nsga2Settings,
    optimum: Frontier | None = None,
    listener: ProgressListener = SILENT,
) -> Solution:
    """Return at most ``entries`` architectures of high fitness, spread evenly over the MACs within limits.

    It starts from the networks of ``optimum``, the exact frontier within the limits, none of which is lost to a worse
    one, and ends as soon as it has reached all of them. Without a frontier it ends with a local search from what it
    found.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    known = None if optimum is None else optimum.genes
    front = search_front(space, fitness, limits, settings, known, listener, optimum)
    if optimum is None:
        front = _polished(Objectives(space, fitness, limits), front, listener)
    return Solution(make_entries(space, front.evenly_spaced(entries), fitness), front.generations)


class EvolvedFront(NamedTuple):
    """Feasible, non-dominated gene vectors by ascending MACs (and fitness), with their (−fitness, MACs).

    ``generations`` says how many it took to find them.
    """

    genes: IntArray
    objectives: NDArray[np.float64]
    generations: int = 0

    def merged(self, genes: IntArray, objectives: NDArray[np.float64]) -> "EvolvedFront":
        """Return the front of these points and other feasible ones."""
        genes, objectives = np.concatenate([self.genes, genes]), np.concatenate([self.objectives, objectives])
        kept = pareto_front(objectives[:, 1], -objectives[:, 0])
        return EvolvedFront(genes[kept], objectives[kept], self.generations)

    def reaches(self, optimum: Frontier) -> bool:
        """Return True if the gap to an exact frontier is zero: within the MACs of each of its points one is as fit."""
        # One more in front: below the first point there is nothing.
        best = np.concatenate([[-np.inf], -self.objectives[:, 0]])
        within = best[np.searchsorted(self.objectives[:, 1], optimum.macs, side="right")]
        slack = np.array([rounding(value) for value in optimum.values.tolist()])
        return bool((within >= optimum.values - slack).all())

    def evenly_spaced(self, count: int) -> IntArray:
        """Return the genes of at most ``count`` points, spread evenly over the MACs."""
        return self.genes[evenly_spaced(self.objectives[:, 1].astype(np.int64), count)]


def search_front(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    settings: Nsga2Settings,
    known: IntArray | None = None,
    listener: ProgressListener = SILENT,
    optimum: Frontier | None = None,
) -> EvolvedFront:
    """Return the front NSGA-II finds within ``limits`` and ``ρ ≤ ρ0``; at least one point.

    ``known`` gene vectors (N, genes), most promising first, are in the first generation as far as there is room.
    The search ends when the front reaches all of ``optimum``, the exact frontier within the limits, if it is given.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    check_reachable(space, limits)
    front = _evolve(space, fitness, limits, settings, known, listener, optimum)
    if not len(front.genes):
        smallest = _evolve(space, fitness, Limits(), settings, known, listener)
        raise BudgetError(_nothing_feasible(space, fitness, limits, smallest.objectives[:1, 1]))
    return front


def _polished(objectives: Objectives, front: EvolvedFront, listener: ProgressListener) -> EvolvedFront:
    """Return the front with what is one trade away from its points, until that adds nothing."""
    moves = trades(objectives.space)
    if not len(moves):
        return front
    tried: set[bytes] = set()
    for done in range(_POLISHES):
        listener.report(f"local search, front of {len(front.genes)}", done, _POLISHES)
        untried = [genes for genes in front.genes if genes.tobytes() not in tried]
        points = [untried[index] for index in evenly_spaced(np.arange(len(untried)), _POLISHED // len(moves))]
        if not points:
            break
        tried.update(genes.tobytes() for genes in points)
        front = front.merged(*objectives.feasible(neighbours(objectives.space, np.stack(points), moves)))
    listener.report(f"local search, front of {len(front.genes)}", _POLISHES, _POLISHES)
    return front


def _evolve(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    settings: Nsga2Settings,
    known: IntArray | None,
    listener: ProgressListener,
    optimum: Frontier | None = None,
) -> EvolvedFront:
    objectives = Objectives(space, fitness, limits)
    front = EvolvedFront(np.empty((0, len(gene_layout(space).sizes)), dtype=np.int64), np.empty((0, 2)))
    if known is not None and len(known):
        front = front.merged(*objectives.feasible(known))
    algorithm = None
    for generation in range(1, settings.generations + 1):
        if optimum is not None and front.reaches(optimum):
            break
        algorithm = algorithm or _first_generation(objectives, settings, known)
        algorithm.next()
        feasible = algorithm.pop[algorithm.pop.get("feas")]
        if len(feasible):
            front = front.merged(feasible.get("X"), feasible.get("F"))
        front = front._replace(generations=generation)
        listener.report(f"front of {len(front.genes)}", generation, settings.generations)
    return front


def _first_generation(objectives: Objectives, settings: Nsga2Settings, known: IntArray | None) -> "NSGA2":
    """Return pymoo's algorithm before its first generation, which holds half known networks where some are known."""
    # pymoo and what it imports of scipy: a search that starts from the frontier mostly ends before a generation.
    from pymoo.algorithms.moo.nsga2 import NSGA2  # noqa: PLC0415
    from pymoo.operators.crossover.ux import UniformCrossover  # noqa: PLC0415

    from fedpareto.cache.nsga2.operators import ExchangeMutation  # noqa: PLC0415
    from fedpareto.cache.nsga2.problem import ArchitectureProblem  # noqa: PLC0415

    space = objectives.space
    start = ladder(space, settings.population, np.random.default_rng(settings.seed))
    if known is not None and len(known):
        # Half of the first generation stays random, so that what is known does not narrow the search.
        kept = known[: settings.population // 2]
        start = np.concatenate([kept, start[:: max(1, settings.population // (settings.population - len(kept)))]])
    algorithm = NSGA2(
        pop_size=settings.population,
        sampling=np.unique(start[: settings.population], axis=0),
        crossover=UniformCrossover(prob=0.9),
        mutation=ExchangeMutation(space),
        eliminate_duplicates=True,
    )
    algorithm.setup(
        ArchitectureProblem(objectives), termination=("n_gen", settings.generations), seed=settings.seed, verbose=False
    )
    return algorithm


def _nothing_feasible(
    space: SearchSpace, fitness: FitnessSettings, limits: Limits, smallest: NDArray[np.float64]
) -> str:
    """Return the message for limits that are met only by networks with ``ρ > ρ0``.

    ``smallest`` holds the least MACs found with ``ρ ≤ ρ0``, or nothing.
    """
    found = f"the smallest found has {format_quantity(smallest[0])} MACs; " if len(smallest) else ""
    return (
        f"no network of {space.name} found with {limits.words()} and effectiveness ρ ≤ "
        f"{fitness.max_effectiveness}; {found}raise the budget, or max_effectiveness in a fitness.yaml"
    )
