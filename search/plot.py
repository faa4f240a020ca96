"""The picture of a search: what is possible, what a genetic search finds, what a cache holds, what was chosen."""

import dataclasses
from pathlib import Path

from cache.entries import CACHE_ENTRIES, make_entries, spread
from cache.plot import Fronts, plot_fronts
from cache.progress import Listener
from search.answering import Answered
from search.subject import Subject


def plot_search(path: Path, subject: Subject, answered: Answered, listener: Listener) -> None:
    """Draw the frontier, the front NSGA-II finds on its own, the known entries of a cache, and the answer.

    Raises:
        UserError: the file cannot be written.
    """
    from search.evolution import front_alone  # noqa: PLC0415 - a search without a plot does without pymoo

    searched = front_alone(subject.space, subject.fitness, listener)
    plot_fronts(path, subject.space, dataclasses.replace(fronts_of(subject, answered), searched=searched))


def fronts_of(subject: Subject, answered: Answered) -> Fronts:
    """Return the frontier, the known entries or else a spread of it, and the answer with its budget of MACs."""
    frontier, known = answered.answer.frontier, subject.known
    if not known and frontier is not None:
        known = tuple(
            make_entries(subject.space, frontier.genes[spread(frontier.macs, CACHE_ENTRIES)], subject.fitness)
        )
    return Fronts(frontier, None, known, answered.answer.entry, answered.limits.macs)
