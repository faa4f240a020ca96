"""What the benchmark of a GPU found: a JSON file, whole after every row, and the tables made of it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from supernet.errors import UserError
from supernet.files import read_text, write_text
from supernet.json_text import parse_json
from supernet.units import format_quantity
from supernet.words import counted
from training.json_values import from_json

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Rate:
    """A row: how fast one network is trained in one way, or why that was not measured.

    Attributes:
        space: of the network.
        size: which of the space's networks it is.
        macs: multiply–accumulates of one image.
        way: plain loop, plain loop on tensors, or ours.
        precision: of the arithmetic; of the plain loops fp32 with torch's defaults.
        memory_format: of images and weights.
        graphs: whether steps are replayed as CUDA graphs.
        clients: that train at once.
        kernels: of cuDNN: deterministic, or the fastest it has.
        images_per_second: of the fastest pass.
        ratio: to the plain loop.
        ratio_on_tensors: to the plain loop on images that are normalised and on the device already.
        peak_share: share of the FLOP/s of a large matrix product of the same precision, in the same process.
        outside_sgd: share of a round in which no client trains.
        memory: bytes at their peak.
        problem: why there is no rate.
    """

    space: str
    size: str
    macs: int
    way: str
    precision: str = "fp32"
    memory_format: str = "contiguous"
    graphs: bool = False
    clients: int = 1
    kernels: str = "fastest"
    images_per_second: float | None = None
    ratio: float | None = None
    ratio_on_tensors: float | None = None
    peak_share: float | None = None
    outside_sgd: float | None = None
    memory: int | None = None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Peak:
    """FLOP/s of a large matrix product in a precision."""

    precision: str
    flops: float


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Test accuracy of the largest network that training knew within a budget of MACs."""

    budget: int
    macs: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Point:
    """Mean validation accuracy of the probes after a round, so many seconds into training."""

    round: int
    seconds: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Training:
    """A federated training that ended with its time.

    Attributes:
        profile: how it was computed, in words.
        clients: of the federation.
        per_round: of them in a round.
        rounds: merged.
        images: that clients trained on, every pass counted.
        seconds: of all rounds, with their evaluations.
        outside_sgd: share of the rounds' seconds in which no client trained.
        test_images: that accuracy is measured on at the end.
        curve: accuracy on validation images as training went.
        accuracies: on test images, at three budgets.
    """

    profile: str
    clients: int
    per_round: int
    rounds: int
    images: int
    seconds: float
    outside_sgd: float
    test_images: int
    curve: tuple[Point, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """All that was found so far.

    Attributes:
        machine: card, driver and versions, one a line.
        minutes: that were given.
        batch: images a step.
        peaks: of every precision that was used.
        rates: the rows.
        training: the training at the end.
        notes: what was cut, and what is not possible here.
        seconds: since the start.
        complete: whether nothing is to come.
    """

    machine: tuple[str, ...]
    minutes: float
    batch: int
    peaks: tuple[Peak, ...] = ()
    rates: tuple[Rate, ...] = ()
    training: Training | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    complete: bool = False
    format: int = FORMAT


def write_report(path: Path, report: Report) -> None:
    """Write the report whole, or leave the file as it was."""
    write_text(path, json.dumps(dataclasses.asdict(report), indent=1) + "\n")


def read_report(path: Path) -> Report:
    """Return the report in a file.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        value = parse_json(read_text(path), str(path), UserError)
        report = from_json(Report, value)
    except ValueError as error:
        raise UserError(f"{path} is no report of benchmarks/gpu.py: {error}") from error
    if report.format != FORMAT:
        raise UserError(f"{path} has format {report.format}; this version reads {FORMAT}")
    return report


#: Columns of the table of rates.
COLUMNS = (
    "network", "way", "precision", "images/s", "to the plain loop", "to it on tensors", "of the product's FLOP/s",
    "round outside SGD", "memory",
)  # fmt: skip


def rate_row(rate: Rate) -> list[str]:
    """Return the cells of one rate, in the order of ``COLUMNS``."""
    return [
        f"{rate.space} {rate.size} ({format_quantity(rate.macs)} MACs)",
        way_of(rate),
        rate.precision,
        f"{rate.images_per_second:,.0f}" if rate.images_per_second is not None else rate.problem or "–",
        _cell(rate.ratio, "{:.2f}×"),
        _cell(rate.ratio_on_tensors, "{:.2f}×"),
        _cell(rate.peak_share, "{:.1%}"),
        _cell(rate.outside_sgd, "{:.1%}"),
        _cell(None if rate.memory is None else rate.memory / 1e6, "{:,.0f} MB"),
    ]


def way_of(rate: Rate) -> str:
    """Return how a row was trained, in words."""
    if rate.way != "ours":
        return rate.way
    parts = ["ours", "graphs" if rate.graphs else "eager"]
    parts += ["contiguous"] if rate.memory_format == "contiguous" else []
    parts += ["cuDNN's fastest"] if rate.kernels == "fastest" else []
    return f"{', '.join(parts)}, {rate.clients} at once"


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    return "\n".join(_markdown_lines(report)) + "\n"


def _markdown_lines(report: Report) -> Iterator[str]:
    yield from (f"{line}  " for line in report.machine)
    state = "complete" if report.complete else "not finished"
    yield f"Batch {report.batch}; {report.seconds:.0f} s of {report.minutes:g} min, {state}."
    yield ""
    peaks = (f"{peak.precision} {peak.flops / 1e12:,.2f} TFLOP/s" for peak in report.peaks)
    yield f"A large matrix product: {', '.join(peaks) or 'not measured'}."
    yield ""
    yield from _table(COLUMNS, map(rate_row, report.rates), 3)
    if report.training is not None:
        yield ""
        yield from _training_lines(report.training)
    if report.notes:
        yield ""
        yield from (f"- {note}" for note in report.notes)


def _training_lines(training: Training) -> Iterator[str]:
    yield training_words(training)
    if training.accuracies:
        yield ""
        rows = ([format_quantity(one.budget), f"{one.macs:,}", f"{one.accuracy:.1%}"] for one in training.accuracies)
        yield from _table(
            ("budget of MACs", "MACs", f"accuracy on {counted(training.test_images, 'test image')}"), rows, 0
        )
    if training.curve:
        yield ""
        curve = ([str(one.round), f"{one.seconds:.0f} s", f"{one.accuracy:.1%}"] for one in training.curve)
        yield from _table(("round", "after", "mean validation accuracy"), curve, 0)


def training_words(training: Training) -> str:
    """Return what was trained and how fast, in one sentence."""
    rate = training.images / training.seconds if training.seconds else 0.0
    return (
        f"Training: mobilenet-cifar, {training.per_round} of {training.clients} clients a round, {training.rounds:,} "
        f"rounds in {training.seconds:.0f} s, {rate:,.0f} images/s, {training.outside_sgd:.1%} outside SGD; "
        f"clients train {training.profile}."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], figures: int) -> Iterator[str]:
    """Yield the lines of a Markdown table; columns from number ``figures`` on are on the right."""
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---:' if number >= figures else '---' for number in range(len(columns)))} |"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
