"""Plot of a search: the frontier, the entries of the cache, and the architecture chosen, over MACs."""

import dataclasses
from pathlib import Path

from fedpareto.cache.entries import CACHE_ENTRIES, evenly_spaced, make_entries
from fedpareto.cache.plot import Fronts, front_title, plot_fronts
from fedpareto.search.query.answering import SearchOutcome
from fedpareto.search.query.subject import SearchTarget
from fedpareto.supernet.common.terminal.progress import ProgressListener


def plot_search(path: Path, subject: SearchTarget, answered: SearchOutcome, listener: ProgressListener) -> None:
    """Draw the frontier, the known entries of a cache, and the answer.

    Where the space is too large for its frontier to be known, the front that NSGA-II finds stands in for it.

    Raises:
        UserError: the file cannot be written.
    """
    fronts = fronts_of(subject, answered)
    if fronts.frontier is None:
        from fedpareto.search.query.evolution import front_alone  # noqa: PLC0415 - a search without a plot does without pymoo

        fronts = dataclasses.replace(fronts, searched=front_alone(subject.space, subject.fitness, listener))
    plot_fronts(path, front_title(subject.space), fronts)


def fronts_of(subject: SearchTarget, answered: SearchOutcome) -> Fronts:
    """Return the frontier, the known entries or else a spread of it, and the answer with its budget of MACs."""
    frontier, known = answered.answer.frontier, subject.known
    if not known and frontier is not None:
        known = tuple(
            make_entries(subject.space, frontier.genes[evenly_spaced(frontier.macs, CACHE_ENTRIES)], subject.fitness)
        )
    return Fronts(frontier, None, known, answered.answer.entry, answered.limits.macs)
