"""Pareto caches and frontiers from Python: what ``build-cache`` calls."""

from pathlib import Path

from fedpareto.cache.build import Solver, SolverSettings, compute_cache
from fedpareto.cache.cache_file import Cache, read_cache, read_cache_of_any_classes, write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES
from fedpareto.cache.exact.frontier import Frontier
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.nsga2.solver import Nsga2Settings
from fedpareto.cache.plot import Fronts, check_plot_path, front_title, plot_fronts
from fedpareto.fitness.settings import fitness_of
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.storage.files import check_output
from fedpareto.supernet.common.terminal.progress import progress_or_silence
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_of


@checked
def build_cache(
    space: SearchSpace | str | Path,
    entries: int = CACHE_ENTRIES,
    *,
    flops_min: str | int | None = None,
    flops_max: str | int | None = None,
    classes: int | None = None,
    fitness: FitnessSettings | str | Path | None = None,
    solver: Solver = "nsga2",
    cold: bool = False,
    population: int = 200,
    generations: int = 200,
    seed: int = 0,
    output: str | Path | None = None,
    plot: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Cache:
    """Build a Pareto cache: architectures of highest fitness, spread evenly over a range of MACs.

    Args:
        space: a search space, the name of a preset or a YAML file.
        entries: architectures in the cache.
        flops_min: least MACs of an entry, e.g. 20M; the smallest feasible network's when left out.
        flops_max: most MACs of an entry, e.g. 180M; the largest feasible network's when left out.
        classes: outputs of the classifier; the space's own when left out.
        fitness: weights, or a YAML file of them; the space's own when left out.
        solver: nsga2 searches, from the exact frontier unless told to start cold; exact takes entries off it.
        cold: let NSGA-II search without the frontier, which then only says how far it stayed behind.
        population: individuals a generation of NSGA-II.
        generations: generations of NSGA-II.
        seed: seed of the search.
        output: cache file to write (JSON Lines); none when left out.
        plot: .png, .svg or .pdf file to draw the front to; none when left out.
        overwrite: replace files that exist.
        progress: show progress.

    Raises:
        UserError: no network meets the limits, a file cannot be read or written, or settings do not go together.

    >>> import fedpareto as fp
    >>> fp.build_cache("mobilenet-tiny", entries=5, solver="exact")
    Cache(5 entries of 129.6K to 4.211M MACs, fitness 108.5 to 695.1, by the exact solver, optimality gap 0)
    """
    given = space_of(space, classes)
    weights = fitness_of(fitness, given)
    limits = Limits(
        macs=None if flops_max is None else parse_quantity(str(flops_max)),
        min_macs=None if flops_min is None else parse_quantity(str(flops_min)),
    )
    _check_outputs(output, plot, overwrite=overwrite)
    settings = SolverSettings(solver, cold, Nsga2Settings(population, generations, seed))
    with progress_or_silence("building the cache", progress) as listener:
        cache = compute_cache(given, weights, limits, entries, settings, listener)
    if output is not None:
        write_cache(Path(output), cache)
    if plot is not None:
        known = None if cache.gaps is None else load_or_compute_frontier(given, weights.for_cache())
        plot_fronts(Path(plot), front_title(given), Fronts(known, entries=cache.entries))
    return cache


@checked
def load_cache(path: str | Path, space: SearchSpace | str | Path, *, classes: int | None = None) -> Cache:
    """Load a Pareto cache from the file that ``Cache.save`` or ``build-cache`` wrote; all its numbers are recomputed.

    Args:
        path: the cache file.
        space: its search space, the name of a preset or a YAML file.
        classes: outputs of the classifier; those of the file when left out.

    Raises:
        CacheError: the file is no cache of the space, or was altered.
        UserError: a file cannot be read.

    >>> import fedpareto as fp
    >>> path = fp.build_cache("mobilenet-tiny", entries=5, solver="exact", progress=False).save("loaded.jsonl")
    >>> len(fp.load_cache(path, "mobilenet-tiny").entries)
    5
    """
    given = space_of(space, classes)
    return read_cache_of_any_classes(Path(path), given) if classes is None else read_cache(Path(path), given)


@checked
def frontier(
    space: SearchSpace | str | Path,
    *,
    fitness: FitnessSettings | str | Path | None = None,
    classes: int | None = None,
    progress: bool = True,
) -> Frontier:
    """Compute the exact Pareto frontier: for every number of MACs the highest fitness, with a proof.

    It is kept in the user's cache folder, so that the second call answers at once.

    Args:
        space: a search space, the name of a preset or a YAML file.
        fitness: weights, or a YAML file of them; the space's own when left out.
        classes: outputs of the classifier; the space's own when left out.
        progress: show progress.

    Raises:
        SpaceTooLargeError: the space is too large to be solved exactly.
        UserError: a file cannot be read.

    >>> import fedpareto as fp
    >>> frontier = fp.frontier("mobilenet-tiny")
    >>> frontier.entry(frontier.best_within(1_000_000)).macs <= 1_000_000
    True
    """
    given = space_of(space, classes)
    with progress_or_silence("computing the frontier", progress) as listener:
        return load_or_compute_frontier(given, fitness_of(fitness, given), listener)


def _check_outputs(output: str | Path | None, plot: str | Path | None, *, overwrite: bool) -> None:
    """Refuse files that cannot be written, before anything is computed."""
    if output is not None:
        check_output(Path(output), overwrite=overwrite)
    if plot is not None:
        check_plot_path(Path(plot))
        if output is not None and Path(plot) == Path(output):
            raise UserError(f"{option('plot')} and {option('output')} are both {output}; name two files")
        check_output(Path(plot), overwrite=overwrite)
