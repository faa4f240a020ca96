"""Active learning of a fitness in rounds: fit, search with the fit, and measure the networks found."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.search.ranking.fitting.learning import Learned, learn_terms
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.search.ranking.measuring.bands import Subnet
from fedpareto.search.ranking.measuring.design import Region, fittest_subnets, near_subnets, spread_subnets
from fedpareto.search.ranking.measuring.measured_sample import Sample, sample_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings

#: Rounds in which what a search finds is measured.
ROUNDS = 3

#: Fewest subnets in all: of each part of the MACs some are measured before the first fit.
LEAST_SUBNETS = 48

#: Measures subnets; the first argument is the number of the round, 0 for those that are not searched.
MeasureRound = Callable[[int, Sequence[Subnet]], Sequence[Reading]]


def first_subnets(
    region: Region,
    entries: Sequence[Architecture],
    count: int,
    excluded: Collection[Architecture],
    generator: np.random.Generator,
) -> list[Subnet]:
    """Return the subnets that are measured before any fit: half of ``count`` spread, a quarter near the cache.

    Raises:
        UserError: there are too few networks.
    """
    spread = spread_subnets(region, count // 2, excluded, generator)
    known = {*excluded, *(subnet.architecture for subnet in spread)}
    return spread + near_subnets(region, entries, count // 4, known, generator)


def learn_in_rounds(
    region: Region,
    first: Sequence[Subnet],
    count: int,
    excluded: Collection[Architecture],
    start: FitnessSettings,
    measure: MeasureRound,
    seed: int,
    listener: ProgressListener,
) -> tuple[Sample, Learned]:
    """Learn a fitness from the ``first`` subnets and from those that searches find; return all subnets as well.

    Args:
        region: region that subnets are drawn from.
        first: subnets that are measured before anything is searched.
        count: number of subnets in all; fewer if searches find no new ones.
        excluded: networks that must not be learned from.
        start: the fitness to begin with.
        measure: measures subnets.
        seed: seed of the draws.
        listener: told of searches.

    Raises:
        UserError: there are too few subnets, or measuring them fails.
    """
    subnets = list(first)
    readings = list(measure(0, subnets))
    for number in range(1, ROUNDS + 1):
        learned = learn_terms(_sample(region, subnets, readings), start, np.random.default_rng([seed, number]))
        wanted = (count - len(first)) * number // ROUNDS - (count - len(first)) * (number - 1) // ROUNDS
        known = {*excluded, *(subnet.architecture for subnet in subnets)}
        try:
            found = fittest_subnets(region, learned.settings, wanted, known, listener)
        except SpaceTooLargeError as error:
            listener.remark(f"{error}; what a search finds is not measured, and the fit ends without it")
            break
        readings += measure(number, found)
        subnets += found
    sample = _sample(region, subnets, readings)
    return sample, learn_terms(sample, start, np.random.default_rng([seed, 0]))


def _sample(region: Region, subnets: Sequence[Subnet], readings: Sequence[Reading]) -> Sample:
    return sample_of(region.space, [subnet.architecture for subnet in subnets], readings, region.parts)
