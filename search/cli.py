"""``search-subnet``: the fittest architecture within limits, and with a run the trained subnet itself."""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cache.entries import Entry
from cache.limits import Limits
from cache.plot import check_plot_path
from cache.progress import Listener, shown
from fitness.settings import load_settings
from search.architecture_file import save_architecture
from search.latency.table import read_latency
from search.plot import plot_search
from search.report import print_report, search_report
from search.searcher import Answer, search, search_cheapest
from supernet.console import next_step, options_parser, run_command
from supernet.errors import BudgetError, UserError
from supernet.files import check_output, check_output_folder
from supernet.space import FitnessSettings, SearchSpace, load_space
from supernet.units import parse_milliseconds, parse_quantity

PROG = "search-subnet"


@dataclasses.dataclass
class Options:
    """What to search, and where.

    Attributes:
        flops_budget: most MACs (multiply-accumulates of one image), e.g. 60M, 1.2G or 6e7.
        params_budget: most parameters, e.g. 2M.
        latency_budget: most milliseconds by a latency table, e.g. 5ms.
        latency_table: JSON file of a device's milliseconds for every block of the space.
        min_fitness: look for the fewest MACs that reach this fitness, not for the highest fitness.
        space: preset name or YAML file of a search space; or give a run.
        run: folder of a trained run, whose subnet is extracted, calibrated and evaluated.
        checkpoint: which checkpoint of the run to use, best by validation or newest.
        test: also measure accuracy on the test images.
        fitness: YAML file of fitness weights; those of the run's cache or of the space when left out.
        classes: outputs of the classifier, with a space; its own when left out.
        output: folder for architecture.json and, with a run, subnet.safetensors.
        plot: draw frontier, genetic search, cache and choice to this .png, .svg or .pdf file.
        seed: seed of a genetic search.
        json: print one JSON object instead of a table.
    """

    flops_budget: str | None = None
    params_budget: str | None = None
    latency_budget: str | None = None
    latency_table: str | None = None
    min_fitness: float | None = None
    space: str | None = None
    run: str | None = None
    checkpoint: Literal["best", "newest"] = "best"
    test: bool = False
    fitness: str | None = None
    classes: int | None = None
    output: str | None = None
    plot: str | None = None
    seed: int = 0
    json: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(PROG, "Find the architecture of highest fitness within limits, without training.", Options)
    options = Options(**parser.parse(arguments).as_dict())
    counted = _counted_limits(options)
    output = None if options.output is None else Path(options.output)
    if output is not None:
        check_output_folder(output)
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}; it must be at least 0")
    if options.plot is not None:
        check_plot_path(Path(options.plot))
        check_output(Path(options.plot), overwrite=None)
    space, fitness, known = _subject(options)
    limits = _limits(options, space, counted)
    with shown() as listener:
        started = time.perf_counter()
        answer = _search(options, space, fitness, limits, known, listener)
        report = search_report(space, options.run, limits, options.min_fitness, answer, time.perf_counter() - started)
        if options.plot is not None:
            plot_search(Path(options.plot), space, fitness, limits, answer, known, listener)
    if options.run is not None:
        report = _trained(options, space, answer.entry, report, output)
    elif output is not None:
        save_architecture(output, answer.entry.architecture)
    if output is not None:
        report["output"] = str(output)
    if options.json:
        print(json.dumps(report))
    else:
        print_report(report)
    next_step(_next(options, output))


def _counted_limits(options: Options) -> Limits:
    if (options.latency_budget is None) != (options.latency_table is None):
        raise BudgetError("--latency-budget and --latency-table go together; give both or neither")
    given = (options.flops_budget, options.params_budget, options.latency_budget, options.min_fitness)
    if all(limit is None for limit in given):
        raise BudgetError("give a limit: --flops-budget 60M, --params-budget 2M, both, or --min-fitness 2000")
    if options.min_fitness is not None and not math.isfinite(options.min_fitness):
        raise BudgetError(f"--min-fitness is {options.min_fitness}; it must be a finite number")
    return Limits(
        macs=None if options.flops_budget is None else parse_quantity(options.flops_budget),
        params=None if options.params_budget is None else parse_quantity(options.params_budget),
    )


def _limits(options: Options, space: SearchSpace, counted: Limits) -> Limits:
    if options.latency_budget is None:
        return counted
    limit = parse_milliseconds(options.latency_budget)
    return dataclasses.replace(counted, extras=(read_latency(Path(str(options.latency_table)), space, limit),))


def _search(
    options: Options,
    space: SearchSpace,
    fitness: FitnessSettings,
    limits: Limits,
    known: Sequence[Entry],
    listener: Listener,
) -> Answer:
    if options.min_fitness is None:
        return search(space, fitness, limits, known, options.seed, listener)
    return search_cheapest(space, fitness, options.min_fitness, limits, listener)


def _subject(options: Options) -> tuple[SearchSpace, FitnessSettings, tuple[Entry, ...]]:
    """Return the space to search, its fitness weights, and the entries known of it."""
    if (options.space is None) == (options.run is None):
        raise UserError("give either --space NAME (architecture only) or --run FOLDER (trained subnet)")
    if options.run is not None:
        if options.classes is not None:
            raise UserError("--classes goes with --space; a run has the classes of its images")
        return _of_run(Path(options.run), options.fitness)
    if options.test:
        raise UserError("--test needs trained weights: give --run FOLDER instead of --space")
    space = load_space(str(options.space), options.classes)
    return space, load_settings(options.fitness, space), ()


def _of_run(folder: Path, fitness: str | None) -> tuple[SearchSpace, FitnessSettings, tuple[Entry, ...]]:
    from training.run_folder import check_run, read_run_cache, read_space  # noqa: PLC0415 - imports torch

    check_run(folder)
    space = read_space(folder)
    cache = read_run_cache(folder, space)
    settings = cache.fitness if fitness is None else load_settings(fitness, space)
    return space, settings, cache.entries


def _trained(
    options: Options, space: SearchSpace, entry: Entry, report: dict[str, Any], output: Path | None
) -> dict[str, Any]:
    from search.subnet import save_subnet  # noqa: PLC0415 - imports torch
    from search.trained import extract_trained  # noqa: PLC0415

    folder = Path(str(options.run))
    subnet = extract_trained(folder, space, entry, options.checkpoint, test=options.test, report=report)
    if output is not None:
        save_subnet(output, subnet.network, subnet.info)
    return dict(subnet.info.report)


def _next(options: Options, output: Path | None) -> str:
    if options.run is None:
        return f"train-supernet --space {options.space}"
    if output is None:
        names = ("flops_budget", "params_budget", "latency_budget", "latency_table", "min_fitness")
        given = [(name, value) for name in names if (value := getattr(options, name)) is not None]
        limits = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given)
        return f"search-subnet --run {options.run} {limits} --test --output subnet"
    return f"""python -c "from search.subnet import load_subnet; print(load_subnet('{output}'))\""""
