"""Profile of this machine: how long every block of a search space takes here, as a latency table in a file."""

import dataclasses
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import (
    Conditions,
    LatencyTable,
    check_conditions,
    read_table,
    write_latency_table,
)
from fedpareto.search.query.subject import find_space
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.storage.files import check_output
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.terminal.progress import progress_or_silence
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_of

if TYPE_CHECKING:
    import torch

#: Fewest networks of a validation: a correction of two figures is judged by each network that it was not fitted on.
LEAST_VALIDATED = 4


@dataclasses.dataclass(frozen=True, repr=False)
class DeviceProfile:
    """Latency table of a device, and the file it is in.

    Attributes:
        path: the JSON file.
        table: milliseconds of every block, with what was measured where.
        space: the search space whose blocks were measured.
    """

    path: Path
    table: LatencyTable
    space: SearchSpace

    def __repr__(self) -> str:
        return f"DeviceProfile({self.path}: {counted(len(self.table.blocks), 'block')} of {self.space.name})"


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """Settings of a measurement, as ``profile_device`` takes them."""

    runtime: Literal["torch", "onnxruntime"]
    device: Literal["cpu", "cuda"]
    threads: int
    batch: int
    validate: int | None
    interval: float
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.interval < 1:
            raise UserError(f"{option('interval')} is {self.interval}; it must be above 0 and below 1, such as 0.02")
        if self.validate is not None and self.validate < LEAST_VALIDATED:
            raise UserError(
                f"{option('validate')} is {self.validate}; it must be at least {counted(LEAST_VALIDATED, 'network')}"
            )


@checked
def profile_device(
    space: SearchSpace | str | Path | None = None,
    *,
    output: str | Path,
    run: str | Path | None = None,
    classes: int | None = None,
    runtime: Literal["torch", "onnxruntime"] = "onnxruntime",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int = 1,
    batch: int = 1,
    validate: int | None = None,
    interval: float = 0.02,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> DeviceProfile:
    """Measure the latency of every distinct block of a search space on this machine.

    What is measured is kept beside the output, so that an interrupted measurement goes on.

    Args:
        space: a search space, the name of a preset or a YAML file; or give a run.
        output: JSON file for the table.
        run: folder of a trained run, whose space is measured with the classes of its images.
        classes: outputs of the classifier, with a space; its own when left out.
        runtime: what runs the networks on the device.
        device: where they run, the CPU or the first GPU of this machine.
        threads: CPU threads.
        batch: images a run; the times are of whole batches.
        validate: measure this many whole networks, too, and tell how well the table predicts them; of an existing
            table only that.
        interval: half the width of the 95 % confidence interval of a block's median that is enough, relative to it.
        seed: seed of weights, inputs and orders.
        overwrite: replace an existing table.
        progress: show progress.

    Raises:
        UserError: a package or the device is missing, or the output exists or cannot be written.

    >>> import fedpareto as fp
    >>> settings = {"runtime": "torch", "interval": 0.9, "progress": False}
    >>> profile = fp.profile_device("mobilenet-tiny", output="table.json", **settings)
    >>> fp.find_subnet("mobilenet-tiny", latency=("1s", profile), progress=False).certified
    True
    """
    how = _Measurement(runtime, device, threads, batch, validate, interval, seed)
    path = Path(output)
    existing = validate is not None and is_file(path) and not overwrite
    check_output(path, overwrite=overwrite or existing)
    if (space is None) == (run is None):
        raise UserError(f"give either {option('space')} NAME or {option('run', 'FOLDER')}")
    wanted = find_space(None, str(run), classes) if space is None else space_of(space, classes)
    return DeviceProfile(path, _measured(how, wanted, path, existing=existing, progress=progress), wanted)


def _measured(how: _Measurement, space: SearchSpace, path: Path, *, existing: bool, progress: bool) -> LatencyTable:
    from fedpareto.search.profiling.profile import Bench, clock_of, profile, started_table  # noqa: PLC0415 - imports torch
    from fedpareto.search.runtimes.runtime import check_runtime, open_runtime  # noqa: PLC0415

    device = check_runtime(how.runtime, how.device)
    clock_name, clock = clock_of(device, how.threads)
    with (
        open_runtime(how.runtime, device, how.threads) as runtime,
        progress_or_silence("preparing the measurement", progress) as listener,
    ):
        conditions = _conditions(how, space, device, clock_name, runtime.versions())
        bench = Bench(space, runtime, how.batch, how.interval, how.seed, clock)
        if existing:
            table = _existing(path, space, conditions)
        else:
            table = profile(bench, path, started_table(path, conditions), listener)
        if how.validate is not None:
            from fedpareto.search.profiling.validation import validate  # noqa: PLC0415

            table = validate(bench, table, how.validate, listener)
            write_latency_table(path, table)
    return table


def _conditions(
    how: _Measurement, space: SearchSpace, device: "torch.device", clock: str, versions: dict[str, str]
) -> Conditions:
    from fedpareto.search.runtimes.runtime import device_name  # noqa: PLC0415 - imports torch
    from fedpareto.search.runtimes.stopwatch import CONFIDENCE  # noqa: PLC0415

    return Conditions(
        space=space.name,
        machine=machine(),
        device=device_name(device),
        runtime=how.runtime,
        threads=how.threads,
        batch=how.batch,
        clock=clock,
        versions=versions,
        interval=how.interval,
        confidence=CONFIDENCE,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _existing(output: Path, space: SearchSpace, conditions: Conditions) -> LatencyTable:
    """Return the table in a file if it was measured as networks would be now."""
    table = read_table(output)
    if table.measured is None or not table.references:
        raise UserError(
            f"{output} was not measured by profile-device; choose another {option('output')} to measure a table"
        )
    wanted = dataclasses.asdict(conditions)
    for changing in ("created", "interval", "confidence"):
        del wanted[changing]
    check_conditions(
        table, output, remedy=f"give the settings it was measured with, or another {option('output')}", **wanted
    )
    latency_cost(table, space, source=output)
    return table
