"""Command ``profile-device``: measures this machine's latency table of a search space."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import (
    LatencyTable,
)
from fedpareto.search.profiling.device_profile import profile_device
from fedpareto.search.query.subject import RunImages
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.space import SearchSpace

if TYPE_CHECKING:
    pass

PROG = "profile-device"

#: Networks whose median latency is suggested as a budget.
_TYPICAL = 1000


@dataclasses.dataclass
class ProfileOptions:
    """Options of the measurement.

    Attributes:
        output: JSON file for the table; what is measured is kept beside it, and an interrupted command goes on.
        space: preset name or YAML file of a search space; or give a run.
        run: folder of a trained run, whose space is measured with the classes of its images.
        data: the run's images, which are not read here; the suggested search will look for them in that folder.
        classes: outputs of the classifier, with a space; its own when left out.
        runtime: runtime of the networks on the device.
        device: device of the measurement, the CPU or the first GPU of this machine.
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
    options.data.check(options.run)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name != "data"}
    found = profile_device(**given)
    _report(found.table, found.space, found.path)
    named = {"space": options.space, "run": options.run, **options.data.options, "classes": options.classes}
    next_step(
        command(
            "search-subnet",
            **named,
            latency_table=found.path,
            latency_budget=f"{_typical_ms(found.table, found.space)}ms",
            batch=None if options.batch == 1 else options.batch,
        )
    )


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
