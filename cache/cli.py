"""``build-cache``: the Pareto cache of a search space as a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cache.build import build_cache
from cache.file import Cache, write_cache
from cache.limits import Limits, check_reachable
from cache.nsga2 import Nsga2Settings
from cache.plot import check_plot_path, plot_front
from fitness.settings import load_settings
from supernet.console import next_step, options_parser, progress_bar, run_command
from supernet.errors import UserError
from supernet.files import check_output
from supernet.space import load_space
from supernet.units import format_quantity, parse_quantity

PROG = "build-cache"


@dataclasses.dataclass
class Options:
    """What to build.

    Attributes:
        space: preset name or YAML file of the search space.
        output: the cache file to write (JSON Lines).
        entries: architectures in the cache, spread evenly over the MACs.
        flops_min: least MACs of an entry, e.g. 20M; the smallest feasible network's when left out.
        flops_max: most MACs of an entry, e.g. 180M; the largest feasible network's when left out.
        classes: outputs of the classifier; the space's own when left out.
        fitness: YAML file of fitness weights; the space's own when left out.
        population: individuals a generation of NSGA-II.
        generations: generations of NSGA-II.
        seed: seed of the search.
        plot: also draw the front to this .png, .svg or .pdf file.
        overwrite: replace the output if it exists.
    """

    space: str
    output: str
    entries: int = 60
    flops_min: str | None = None
    flops_max: str | None = None
    classes: int | None = None
    fitness: str | None = None
    population: int = 200
    generations: int = 200
    seed: int = 0
    plot: str | None = None
    overwrite: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(PROG, "Search the architectures of highest fitness over a range of MACs.", Options)
    options = parser.parse(arguments)
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
    check_reachable(space, limits)
    settings = Nsga2Settings(options.population, options.generations, options.seed)
    with progress_bar() as progress:
        task = progress.add_task("searching", total=settings.generations)

        def report(generation: int, generations: int, points: int) -> None:
            progress.update(task, completed=generation, total=generations, description=f"front of {points}")

        cache = build_cache(space, fitness, limits, options.entries, settings, report)
    write_cache(output, space, cache)
    if options.plot is not None:
        plot_front(Path(options.plot), space, cache.entries)
    _print_summary(options.space, output, cache, options.entries)


def _print_summary(space_name: str, output: Path, cache: Cache, asked: int) -> None:
    first, last = cache.entries[0], cache.entries[-1]
    print(
        f"{output}: {len(cache.entries)} entries from {format_quantity(first.macs)} MACs (fitness "
        f"{first.fitness:.1f}) to {format_quantity(last.macs)} MACs (fitness {last.fitness:.1f})"
    )
    if len(cache.entries) < asked:
        print(f"the front within these limits has only {len(cache.entries)} architectures, not {asked}")
    next_step(f"train-supernet --space {space_name} --cache {output}")
