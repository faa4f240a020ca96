"""The pymoo solver: NSGA-II over integer genes, with an archive of everything non-dominated it has seen.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.operators.crossover.ux import UniformCrossover

from cache.entries import Entry, make_entries, non_dominated, spread
from cache.limits import COST_NAMES, Limits, check_reachable
from cache.operators import ExchangeMutation
from cache.problem import ArchitectureProblem
from cache.sampling import ladder
from supernet.errors import BudgetError, UserError
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, SearchSpace
from supernet.units import format_quantity

#: Called after each generation with (generation, generations, points on the front).
Report = Callable[[int, int, int], None]


def unreported(generation: int, generations: int, points: int) -> None:
    """Report nothing."""


@dataclasses.dataclass(frozen=True)
class Nsga2Settings:
    """How long and how wide NSGA-II searches.

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


def solve_nsga2(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    entries: int,
    settings: Nsga2Settings,
    report: Report = unreported,
) -> list[Entry]:
    """Return at most ``entries`` architectures of high fitness, spread evenly over the MACs within limits.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    front = search_front(space, fitness, limits, settings, report=report)
    chosen = spread(front.objectives[:, 1].astype(np.int64), entries)
    return make_entries(space, front.genes[chosen], fitness)


class Front(NamedTuple):
    """Feasible, non-dominated gene vectors by ascending MACs (and fitness), with their (−fitness, MACs)."""

    genes: IntArray
    objectives: NDArray[np.float64]

    def merged(self, population: Population) -> "Front":
        """Return the front of these points and the feasible ones of a pymoo population."""
        feasible = population[population.get("feas")]
        if not len(feasible):
            return self
        genes = np.concatenate([self.genes, feasible.get("X")])
        objectives = np.concatenate([self.objectives, feasible.get("F")])
        kept = non_dominated(objectives[:, 1], -objectives[:, 0])
        return Front(genes[kept], objectives[kept])


def search_front(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    settings: Nsga2Settings,
    known: IntArray | None = None,
    report: Report = unreported,
) -> Front:
    """Return the front NSGA-II finds within ``limits`` and ``ρ ≤ ρ0``; at least one point.

    ``known`` gene vectors (N, genes) are in the first generation, most promising first.

    Raises:
        BudgetError: no network of the space meets the limits, or none was found that also has ``ρ ≤ ρ0``.
    """
    check_reachable(space, limits)
    front = _evolve(space, fitness, limits, settings, known, report)
    if not len(front.genes):
        smallest = _evolve(space, fitness, Limits(), settings, known, report)
        raise BudgetError(_nothing_feasible(space, fitness, limits, smallest.objectives[:1, 1]))
    return front


def _evolve(
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    settings: Nsga2Settings,
    known: IntArray | None,
    report: Report,
) -> Front:
    problem = ArchitectureProblem(space, fitness, limits)
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
    algorithm.setup(problem, termination=("n_gen", settings.generations), seed=settings.seed, verbose=False)
    front = Front(np.empty((0, problem.n_var), dtype=np.int64), np.empty((0, 2)))
    for generation in range(1, settings.generations + 1):
        algorithm.next()
        front = front.merged(algorithm.pop)
        report(generation, settings.generations, len(front.genes))
    return front


def _nothing_feasible(
    space: SearchSpace, fitness: FitnessSettings, limits: Limits, smallest: NDArray[np.float64]
) -> str:
    """Return the message for limits that are met only by networks with ``ρ > ρ0``.

    ``smallest`` holds the least MACs found with ``ρ ≤ ρ0``, or nothing.
    """
    asked = " and ".join(
        f"{'at most' if bound.sign > 0 else 'at least'} {format_quantity(bound.value)} {COST_NAMES[bound.cost]}"
        for bound in limits.bounds()
    )
    found = f"the smallest found has {format_quantity(smallest[0])} MACs; " if len(smallest) else ""
    return (
        f"no network of {space.name} found with {asked or 'any costs'} and effectiveness ρ ≤ "
        f"{fitness.max_effectiveness}; {found}raise the budget, or max_effectiveness in a fitness.yaml"
    )
