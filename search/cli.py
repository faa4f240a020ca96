"""``search-subnet``: the fittest architecture within limits, and with a run the trained subnet itself."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from cache.entries import Entry
from cache.file import entry_to_json
from cache.limits import COST_NAMES, Limits
from fitness.settings import load_settings
from search.architecture_file import save_architecture
from search.searcher import DEFAULT_SETTINGS, search
from supernet.console import next_step, options_parser, print_table, run_command
from supernet.errors import BudgetError, UserError
from supernet.space import FitnessSettings, SearchSpace, load_space
from supernet.units import parse_quantity

PROG = "search-subnet"


@dataclasses.dataclass
class Options:
    """What to search, and where.

    Attributes:
        flops_budget: most MACs (multiply-accumulates of one image), e.g. 60M, 1.2G or 6e7.
        params_budget: most parameters, e.g. 2M.
        space: preset name or YAML file of a search space; or give a run.
        run: folder of a trained run, whose subnet is extracted, calibrated and evaluated.
        checkpoint: which checkpoint of the run to use, best by validation or newest.
        test: also measure accuracy on the test images.
        fitness: YAML file of fitness weights; those of the run's cache or of the space when left out.
        classes: outputs of the classifier, with a space; its own when left out.
        output: folder for architecture.json and, with a run, subnet.safetensors.
        seed: seed of the search.
        json: print one JSON object instead of a table.
    """

    flops_budget: str | None = None
    params_budget: str | None = None
    space: str | None = None
    run: str | None = None
    checkpoint: Literal["best", "newest"] = "best"
    test: bool = False
    fitness: str | None = None
    classes: int | None = None
    output: str | None = None
    seed: int = 0
    json: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(PROG, "Find the architecture of highest fitness within limits, without training.", Options)
    options = Options(**parser.parse(arguments).as_dict())
    limits = _limits(options)
    output = _output(options)
    space, fitness, known = _subject(options)
    started = time.perf_counter()
    entry = search(space, fitness, limits, known, dataclasses.replace(DEFAULT_SETTINGS, seed=options.seed))
    report = _report(options, space, limits, entry, time.perf_counter() - started)
    if options.run is not None:
        report = _trained(options, space, entry, report, output)
    elif output is not None:
        save_architecture(output, entry.architecture)
    if output is not None:
        report["output"] = str(output)
    if options.json:
        print(json.dumps(report))
    else:
        _print_report(report)
    next_step(_next(options, output))


def _limits(options: Options) -> Limits:
    if options.flops_budget is None and options.params_budget is None:
        raise BudgetError("give a limit: --flops-budget 60M, --params-budget 2M, or both")
    return Limits(
        macs=None if options.flops_budget is None else parse_quantity(options.flops_budget),
        params=None if options.params_budget is None else parse_quantity(options.params_budget),
    )


def _output(options: Options) -> Path | None:
    if options.output is None:
        return None
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not an empty folder; choose another --output")
    return output


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


def _report(options: Options, space: SearchSpace, limits: Limits, entry: Entry, seconds: float) -> dict[str, Any]:
    return {
        "space": space.name,
        "run": options.run,
        "limits": {bound.cost: bound.value for bound in limits.bounds()},
        **entry_to_json(entry),
        "slack": {bound.cost: bound.value - getattr(entry, bound.cost) for bound in limits.bounds()},
        "solver": "nsga2",
        "certified": False,
        "search_seconds": round(seconds, 4),
    }


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


def _print_report(report: dict[str, Any]) -> None:
    table = Table(title=f"the fittest subnet of {report['space']} within the limits")
    for column in ("", "value", "limit", "slack"):
        table.add_column(column, justify="left" if not column else "right")
    for cost, name in COST_NAMES.items():
        limit, slack = report["limits"].get(cost), report["slack"].get(cost)
        table.add_row(
            name,
            f"{report[cost]:,}",
            "" if limit is None else f"{limit:,}",
            "" if slack is None else f"{slack:,}",
        )
    table.add_row("fitness", f"{report['fitness']:.3f}", "", "")
    for split in ("validation", "test"):
        if f"{split}_accuracy" in report:
            table.add_row(f"{split} accuracy", f"{report[f'{split}_accuracy']:.2%}", "", "")
    print_table(table)
    print(json.dumps(report["architecture"]))


def _next(options: Options, output: Path | None) -> str:
    if options.run is None:
        return f"train-supernet --space {options.space}"
    if output is None:
        budget = options.flops_budget or options.params_budget
        name = "--flops-budget" if options.flops_budget else "--params-budget"
        return f"search-subnet --run {options.run} {name} {budget} --test --output subnet"
    return f"""python -c "from search.subnet import load_subnet; print(load_subnet('{output}'))\""""
