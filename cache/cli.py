"""The command ``build-cache``, which writes the Pareto cache of a search space to a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedpareto.cache.api import build_cache
from fedpareto.cache.build import Solver
from fedpareto.cache.cache_file import Cache
from fedpareto.cache.entries import CACHE_ENTRIES, CacheEntry
from fedpareto.cache.exact.solver import EQUAL
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.common.unused_options import refuse_unused

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
    cache = build_cache(**vars(options))
    _print_summary(options.space, Path(options.output), cache, options.entries)


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
