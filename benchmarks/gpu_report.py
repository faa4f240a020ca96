"""What the benchmark of a GPU found: a JSON file, whole after every row, and the tables made of it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_dataclasses import from_json
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import read_text, write_text

FORMAT = 2


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
    """Mean validation accuracy of the probes after a round, so many seconds and client MACs into training."""

    round: int
    seconds: float
    compute: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Training:
    """A row: a method's federated training.

    Attributes:
        label: what the study calls the method.
        seed: of its run.
        profile: how it was computed, in words.
        clients: of the federation.
        per_round: of them in a round.
        rounds: merged.
        compute: MACs of the clients' forward passes in them.
        images: that clients trained on, every pass counted.
        seconds: of all rounds, with their evaluations.
        outside_sgd: share of the rounds' seconds in which no client trained.
        test_images: that accuracy is measured on at the end.
        curve: accuracy on validation images as training went.
        accuracies: on test images, at the study's budgets.
        problem: what ended it early, other than the time.
    """

    label: str
    seed: int
    profile: str
    clients: int
    per_round: int
    rounds: int
    compute: int
    images: int
    seconds: float
    outside_sgd: float
    test_images: int
    curve: tuple[Point, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """All that was found so far.

    Attributes:
        machine: card, driver and versions, one a line.
        minutes: that were given.
        batch: images a step.
        peaks: of every precision that was used.
        rates: the rows.
        study: that was trained at the end.
        budgets: MACs at which its methods are compared, ascending.
        trainings: of its methods, the one that decides the compute of all first.
        notes: what was cut, and what is not possible here.
        seconds: since the start.
        complete: whether nothing is to come.
    """

    machine: tuple[str, ...]
    minutes: float
    batch: int
    peaks: tuple[Peak, ...] = ()
    rates: tuple[Rate, ...] = ()
    study: str = ""
    budgets: tuple[int, ...] = ()
    trainings: tuple[Training, ...] = ()
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
        # The fields of another format are others, too.
        if isinstance(value, Mapping) and isinstance(value.get("format"), int) and value["format"] != FORMAT:
            raise UserError(
                f"{path} has format {value['format']}; this version reads {FORMAT}: run benchmarks/gpu.py again"
            )
        return from_json(Report, value)
    except ValueError as error:
        raise UserError(f"{path} is no report of benchmarks/gpu.py: {error}") from error
