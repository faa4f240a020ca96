"""The command ``build-cache``, which writes the Pareto cache of a search space to a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedpareto.cache.build import Solver, SolverSettings, build_cache
from fedpareto.cache.cache_file import Cache, write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES, CacheEntry
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.exact.solver import EQUAL
from fedpareto.cache.nsga2.solver import Nsga2Settings
from fedpareto.cache.plot import Fronts, check_plot_path, plot_fronts
from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity, parse_quantity
from fedpareto.supernet.common.storage.files import check_output
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.common.unused_options import refuse_unused
from fedpareto.supernet.space_file import load_space

PROG = "build-cache"


@dataclasses.dataclass
class CacheOptions:
    """Options of ``build-cache``.

    Attributes:
        space: preset name or YAML file of the search space.
        output: the cache file to write (JSON Lines).
        entries: architectures in the cache, spread evenly over the MACs.
        flops_min: least MACs of an entry, e.g. 20M; the smallest feasible network's when left out.
        flops_max: most MACs of an entry, e.g. 180M; the largest feasible network's when left out.
        classes: outputs of the classifier; the space's own when left out.
        fitness: YAML file of fitness weights; the space's own when left out.
        solver: nsga2 searches, from the exact frontier unless told to start cold; exact takes entries off it.
        cold: let NSGA-II search without the frontier, which then only says how far it stayed behind.
        population: individuals a generation of NSGA-II.
        generations: generations of NSGA-II.
        seed: seed of the search.
        plot: also draw the front to this .png, .svg or .pdf file.
        overwrite: replace the output if it exists.
    """

    space: str
    output: str
    entries: int = CACHE_ENTRIES
    flops_min: str | None = None
    flops_max: str | None = None
    classes: int | None = None
    fitness: str | None = None
    solver: Solver = "nsga2"
    cold: bool = False
    population: int = 200
    generations: int = 200
    seed: int = 0
    plot: str | None = None
    overwrite: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(PROG, "Search the architectures of highest fitness over a range of MACs.", CacheOptions)
    options = CacheOptions(**parser.parse(arguments).as_dict())
    searched = (options.solver == "nsga2", "with --solver nsga2, which searches")
    refuse_unused(options, dict.fromkeys(("population", "generations", "seed"), searched))
    space = load_space(options.space, options.classes)
    fitness = load_settings(options.fitness, space)
    limits = Limits(
        macs=None if options.flops_max is None else parse_quantity(options.flops_max),
        min_macs=None if options.flops_min is None else parse_quantity(options.flops_min),
    )
    output = Path(options.output)
    check_output(output, overwrite=options.overwrite)
    if options.plot is not None:
        check_plot_path(Path(options.plot))
        if Path(options.plot) == output:
            raise UserError(f"--plot and --output are both {output}; name two files")
        check_output(Path(options.plot), overwrite=options.overwrite)
    nsga2 = Nsga2Settings(options.population, options.generations, options.seed)
    method = SolverSettings(options.solver, options.cold, nsga2)
    with progress_display("building the cache") as listener:
        cache = build_cache(space, fitness, limits, options.entries, method, listener)
    write_cache(output, space, cache)
    if options.plot is not None:
        frontier = None if cache.gaps is None else load_or_compute_frontier(space, fitness.for_cache())
        plot_fronts(Path(options.plot), space, Fronts(frontier, entries=cache.entries))
    _print_summary(options.space, output, cache, options.entries)


def _print_summary(space_name: str, output: Path, cache: Cache, asked: int) -> None:
    first, last = cache.entries[0], cache.entries[-1]
    say(
        f"{output}: {counted(len(cache.entries), 'entry')} from {format_quantity(first.macs)} MACs (fitness "
        f"{first.fitness:.1f}) to {format_quantity(last.macs)} MACs (fitness {last.fitness:.1f})"
    )
    if len(cache.entries) < asked:
        say(f"the front within these limits has only {counted(len(cache.entries), 'architecture')}, not {asked}")
    if cache.gaps is not None:
        say(_gaps(cache.entries, cache.gaps))
    settings = cache.solver_settings
    if cache.solver == "nsga2" and settings["generations_run"] < settings["generations"]:
        planned = counted(settings["generations"], "generation")
        say(f"NSGA-II ended after {settings['generations_run']} of {planned}: its {settings['ended_by']}")
    next_step(command("train-supernet", space=space_name, cache=output))


def _gaps(entries: Sequence[CacheEntry], gaps: Sequence[float]) -> str:
    """Return a sentence about the gaps between the entries' fitness and the optima."""
    shares = [gap / max(1.0, abs(entry.fitness + gap)) for entry, gap in zip(entries, gaps, strict=True)]
    optimal = sum(share <= EQUAL for share in shares)
    proven = f"{optimal} of {counted(len(gaps), 'entry')} have the highest fitness at their MACs, by proof"
    if optimal == len(gaps):
        return f"optimality gap: 0; {proven}"
    worst = max(range(len(gaps)), key=shares.__getitem__)
    where = f"{gaps[worst]:.3f} at {format_quantity(entries[worst].macs)} MACs"
    return f"optimality gap: at most {shares[worst]:.3%} ({where}); {proven}"
