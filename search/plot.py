"""The picture of a search: what is possible, what a genetic search finds, what a cache holds, what was chosen."""

from collections.abc import Sequence
from pathlib import Path

from cache.entries import CACHE_ENTRIES, Entry, make_entries, spread
from cache.limits import Limits
from cache.plot import Fronts, plot_fronts
from cache.progress import Listener
from search.searcher import Answer
from supernet.space import FitnessSettings, SearchSpace


def plot_search(
    path: Path,
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    answer: Answer,
    known: Sequence[Entry],
    listener: Listener,
) -> None:
    """Draw the frontier, the front NSGA-II finds on its own, the ``known`` entries of a cache, and the answer.

    Raises:
        UserError: the file cannot be written.
    """
    from search.evolution import front_alone  # noqa: PLC0415 - a search without a plot does without pymoo

    frontier = answer.frontier
    if not known and frontier is not None:
        known = make_entries(space, frontier.genes[spread(frontier.macs, CACHE_ENTRIES)], fitness)
    searched = front_alone(space, fitness, listener)
    plot_fronts(path, space, Fronts(frontier, searched, known, answer.entry, limits.macs))
