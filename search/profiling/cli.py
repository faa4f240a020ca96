"""``profile-device``: this machine's latency table of a search space."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import (
    Conditions,
    LatencyTable,
    check_conditions,
    read_table,
    write_latency_table,
)
from fedpareto.search.query.subject import RunImages, find_space
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.storage.files import check_output
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.space import SearchSpace

if TYPE_CHECKING:
    import torch

PROG = "profile-device"

#: Fewest networks of a validation: a correction of two figures is judged by each network that it was not fitted on.
LEAST_VALIDATED = 4

#: Networks whose median latency is suggested as a budget.
_TYPICAL = 1000


@dataclasses.dataclass
class ProfileOptions:
    """What to measure, and how.

    Attributes:
        output: JSON file for the table; what is measured is kept beside it, and an interrupted command goes on.
        space: preset name or YAML file of a search space; or give a run.
        run: folder of a trained run, whose space is measured with the classes of its images.
        data: the run's images, which are not read here; the suggested search will look for them in that folder.
        classes: outputs of the classifier, with a space; its own when left out.
        runtime: what runs the networks on the device.
        device: where they run, the CPU or the first GPU of this machine.
        threads: CPU threads.
        batch: images a run; the times are of whole batches.
        validate: measure this many whole networks, too, and report how well the table predicts them; of an existing
            table only that.
        interval: half the width of the 95 % confidence interval of a block's median that is enough, relative to it.
        seed: seed of weights, inputs and orders.
        overwrite: replace an existing table.
    """

    output: str
    space: str | None = None
    run: str | None = None
    data: RunImages = dataclasses.field(default_factory=RunImages)
    classes: int | None = None
    runtime: Literal["torch", "onnxruntime"] = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    batch: int = 1
    validate: int | None = None
    interval: float = 0.02
    seed: int = 0
    overwrite: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    description = "Measure the latency of every distinct block of a search space on this machine."
    parser = options_parser(PROG, description, ProfileOptions)
    options = ProfileOptions(**parser.instantiate(parser.parse(arguments)).as_dict())
    _check_numbers(options)
    options.data.check(options.run)
    output = Path(options.output)
    existing = options.validate is not None and is_file(output) and not options.overwrite
    check_output(output, overwrite=options.overwrite or existing)
    if (options.space is None) == (options.run is None):
        raise UserError("give either --space NAME or --run FOLDER")
    space = find_space(options.space, options.run, options.classes)

    from fedpareto.search.profiling.profile import Bench, clock_of, profile, started_table  # noqa: PLC0415 - imports torch
    from fedpareto.search.runtimes.runtime import check_runtime, open_runtime  # noqa: PLC0415

    device = check_runtime(options.runtime, options.device)
    clock_name, clock = clock_of(device, options.threads)
    with (
        open_runtime(options.runtime, device, options.threads) as runtime,
        progress_display("preparing the measurement") as listener,
    ):
        conditions = _conditions(options, space, device, clock_name, runtime.versions())
        bench = Bench(space, runtime, options.batch, options.interval, options.seed, clock)
        if existing:
            table = _existing(output, space, conditions)
        else:
            table = profile(bench, output, started_table(output, conditions), listener)
        if options.validate is not None:
            from fedpareto.search.profiling.validation import validate  # noqa: PLC0415

            table = validate(bench, table, options.validate, listener)
            write_latency_table(output, table)
    _report(table, space, output)
    given = {"space": options.space, "run": options.run, **options.data.options, "classes": options.classes}
    next_step(
        command(
            "search-subnet",
            **given,
            latency_table=output,
            latency_budget=f"{_typical_ms(table, space)}ms",
            batch=None if options.batch == 1 else options.batch,
        )
    )


def _check_numbers(options: ProfileOptions) -> None:
    for name, least in (("threads", 1), ("batch", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    if not 0 < options.interval < 1:
        raise UserError(f"--interval is {options.interval}; it must be above 0 and below 1, such as 0.02")
    if options.validate is not None and options.validate < LEAST_VALIDATED:
        raise UserError(f"--validate is {options.validate}; it must be at least {counted(LEAST_VALIDATED, 'network')}")


def _conditions(
    options: ProfileOptions, space: SearchSpace, device: "torch.device", clock: str, versions: dict[str, str]
) -> Conditions:
    from fedpareto.search.runtimes.runtime import device_name  # noqa: PLC0415 - imports torch
    from fedpareto.search.runtimes.stopwatch import CONFIDENCE  # noqa: PLC0415

    return Conditions(
        space=space.name,
        machine=machine(),
        device=device_name(device),
        runtime=options.runtime,
        threads=options.threads,
        batch=options.batch,
        clock=clock,
        versions=versions,
        interval=options.interval,
        confidence=CONFIDENCE,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _existing(output: Path, space: SearchSpace, conditions: Conditions) -> LatencyTable:
    """Return the table in a file if it was measured as networks would be now."""
    table = read_table(output)
    if table.measured is None or not table.references:
        raise UserError(f"{output} was not measured by {PROG}; choose another --output to measure a table")
    wanted = dataclasses.asdict(conditions)
    for changing in ("created", "interval", "confidence"):
        del wanted[changing]
    check_conditions(table, output, remedy="give the settings it was measured with, or another --output", **wanted)
    latency_cost(table, space, source=output)
    return table


def _report(table: LatencyTable, space: SearchSpace, output: Path) -> None:
    spread = {name: (high - low) / 2 for name, (low, high, _) in table.spread.items()}
    known = float(np.median([half / table.blocks[name] for name, half in spread.items() if table.blocks[name] > 0]))
    say(
        f"{output}: {counted(len(table.blocks), 'block')} of {space.name}, half of them known to ±{known:.1%} or better"
    )
    found = table.validation
    if found is None:
        return
    error = f"mean absolute error {found.mean_absolute_percentage_error:.1f} %"
    rank = "unknown" if found.rank_correlation is None else f"{found.rank_correlation:.3f}"
    say(f"{counted(found.networks, 'whole network')}: {error}, rank correlation {rank}")
    errors = f"{found.uncorrected_percentage_error:.1f} % without, {found.corrected_percentage_error:.1f} % with it"
    if table.correction is None:
        say(f"no correction: it does not lower the error of networks it was not fitted on ({errors})")
    else:
        factor, offset = table.correction.factor, table.correction.offset_ms
        say(f"correction: {factor:.3f} × sum {offset:+.3f} ms; error of networks it was not fitted on: {errors}")


def _typical_ms(table: LatencyTable, space: SearchSpace) -> str:
    genes = random_genes(space, _TYPICAL, np.random.default_rng(0))
    # Two digits, never an exponent.
    return f"{float(f'{np.median(latency_cost(table, space).of(space, genes)):.2g}'):g}"
