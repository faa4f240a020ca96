"""The whole of the benchmark of a GPU: rates, then methods trained, written to a file as they come."""

import dataclasses
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision
from gpu_federation import Images, fitted
from gpu_rates import Bench, fastest, measured, peaks_of, plan, profile_of
from gpu_report import Report, write_report
from gpu_study import Contest, read_contest
from gpu_tables import (
    COLUMNS,
    compute_remarks,
    rate_row,
    setting_words,
    training_columns,
    training_row,
    training_words,
)
from gpu_training import trained
from mosaic import is_mosaic, read_mosaic
from reruns import Rerun
from time_share import Until

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.terminal.console import print_table, stderr
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.sources import load_images
from fedpareto.training.execution.allocator import keep_freed_memory
from fedpareto.training.execution.device import resolve_device
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile

#: Shares of the minutes by whose end rates, and training with its evaluation, are done; what is left is for the end.
RATES_END, TRAINING_END = 0.55, 0.96

SIDE = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """What the benchmark is asked for.

    Attributes:
        data: folder of a mosaic, or of train/CLASS and test/CLASS.
        minutes: for all of it, from the start of the process.
        json: the file of the report.
        device: that trains.
        batch: images a step; those of the study when None.
        study: file of the methods that are trained.
        spaces: whose networks are measured.
    """

    data: Path
    minutes: float
    json: Path
    device: str
    batch: int | None
    study: Path
    spaces: tuple[str, ...]


class Log:
    """The report as it grows: written whole, and told of on standard error, after every change."""

    def __init__(self, path: Path, report: Report, started: float) -> None:
        self._path, self.report, self._started = path, report, started
        self.change()

    def change(self, line: str = "", **fields: object) -> None:
        """Replace fields of the report, write it, and print a line."""
        seconds = time.monotonic() - self._started
        self.report = dataclasses.replace(self.report, seconds=round(seconds, 1), **fields)  # type: ignore[arg-type]
        write_report(self._path, self.report)
        if line:
            stderr.print(f"{seconds:6.1f} s  {line}")

    def note(self, note: str) -> None:
        """Add a note."""
        self.change(note, notes=(*self.report.notes, note))


def run(options: Options, started: float) -> Report:
    """Measure and train within the minutes since ``started`` on the monotonic clock; return what was found.

    Raises:
        UserError: there is no such device, no images, or nowhere to write; the study is none that can be trained here.
    """
    contest = read_contest(options.study)
    contest = contest if options.batch is None else contest.with_batch(options.batch)
    device = resolve_device(options.device)
    keep_freed_memory()
    # Before the report: another one may lie in its place.
    images = load(options.data)
    batch = contest.config.client.batch
    blank = Report(described(device), options.minutes, batch, study=contest.name, budgets=contest.budgets)
    log = Log(options.json, blank, started)
    log.change(f"{counted(len(images.train), 'image')} to train on, {len(images.test):,} to test on")
    recorder = None if device.type == "cuda" else Rerun
    if recorder is not None:
        log.note(f"{device} has no CUDA graphs: steps are run again, one operation after the other")
    seconds = 60 * options.minutes
    _rates(log, options.spaces, device, recorder, Until(started + RATES_END * seconds))
    _trainings(log, contest, images, device, recorder, Until(started + TRAINING_END * seconds))
    log.change("done", complete=True)
    return log.report


def _rates(
    log: Log, spaces: Sequence[str], device: torch.device, recorder: Callable[[], Recorder] | None, until: Until
) -> None:
    peaks = peaks_of(device)
    log.change(", ".join(f"{peak.precision}: {peak.flops / 1e12:,.2f} TFLOP/s" for peak in peaks), peaks=peaks)
    bench = Bench(device, log.report.batch, recorder, {peak.precision: peak.flops for peak in peaks})
    for rate in measured(plan(spaces, device), bench, until):
        log.change(" ".join(rate_row(rate)), rates=(*log.report.rates, rate))
    if until.left <= 0:
        log.note("rates: ended with their share of the time; what is not in the table was not measured")


def _trainings(
    log: Log,
    contest: Contest,
    images: Images,
    device: torch.device,
    recorder: Callable[[], Recorder] | None,
    until: Until,
) -> None:
    """Train the methods with the fastest profile; what goes wrong is a note, or in a method's row."""
    space = contest.config.space
    row = fastest(log.report.rates, space)
    profile = Profile(threads=torch.get_num_threads()) if row is None else profile_of(row)
    rate = 0.0 if row is None else row.images_per_second or 0.0
    log.change(f"training {space} by {', '.join(trial.label for trial in contest.trials)}, {profile}")
    try:
        used = fitted(contest, images, rate * until.left)
        for training in trained(contest, used, device, profile, recorder, until):
            log.change(training_words(training), trainings=(*log.report.trainings, training))
    except (UserError, OutOfMemoryError, RuntimeError) as error:
        log.note(f"training ended early: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
        return
    missing = [trial.label for trial in contest.trials[len(log.report.trainings) :]]
    if missing:
        log.note(f"not trained, as {contest.trials[0].label} has no compute to compare with: {', '.join(missing)}")


def load(folder: Path) -> Images:
    """Return the images of a mosaic, or of folders by class.

    Raises:
        UserError: they are missing or damaged.
    """
    if is_mosaic(folder):
        return Images(read_mosaic(folder, "train"), read_mosaic(folder, "test"))
    preparation = Preparation(SIDE, 3, "crop")
    return Images(
        load_images("imagefolder", str(folder), "train", preparation),
        load_images("imagefolder", str(folder), "test", preparation),
    )


def described(device: torch.device) -> tuple[str, ...]:
    """Return the machine and the versions, one a line."""
    lines = [machine(), f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.platform()}"]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability "
        card += f"{properties.major}.{properties.minor}, {counted(properties.multi_processor_count, 'multiprocessor')}"
        versions = f"CUDA {torch.version.cuda}, cuDNN {_cudnn()}, driver {driver()}"
        lines = [card, versions, *lines]
    return tuple(lines)


def _cudnn() -> int | None:
    found: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def driver() -> str:
    """Return the version of the GPU's driver, or that it is not known."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip() or "unknown"


def print_report(report: Report) -> None:
    """Print the tables of a report."""
    for line in (*report.machine, *report.notes):
        stderr.print(line)
    print_table(f"local training, batch {report.batch}", COLUMNS, map(rate_row, report.rates), figures=3)
    if report.trainings:
        rows = [training_row(training, report) for training in report.trainings]
        title = f"{report.study}: {setting_words(report.trainings[0])}"
        print_table(title, training_columns(report), rows, figures=1)
    for line in compute_remarks(report.trainings):
        stderr.print(line)
