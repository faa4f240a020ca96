"""The tables made of what the benchmark of a GPU found."""

from collections.abc import Iterable, Iterator, Sequence

from gpu_report import Point, Rate, Report, Training

from fedpareto.search.comparison.results.fairness import unequal
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted

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
    if report.trainings:
        yield ""
        yield from _training_lines(report)
    if report.notes:
        yield ""
        yield from (f"- {note}" for note in report.notes)


def _training_lines(report: Report) -> Iterator[str]:
    yield f"Methods of the study {report.study} one after another: {setting_words(report.trainings[0])}."
    yield ""
    yield from _table(training_columns(report), (training_row(one, report) for one in report.trainings), 1)
    yield ""
    networks = ", ".join(f"{one.macs:,}" for one in report.trainings[0].accuracies)
    yield f"Accuracy is that of the fittest network within each budget ({networks or 'not measured'} MACs)."
    yield from compute_remarks(report.trainings)
    curve = [curve_row(training, point) for training in report.trainings for point in training.curve]
    if curve:
        yield ""
        yield from _table(("method", "round", "after", "client MACs", "mean validation accuracy"), curve, 1)


def setting_words(training: Training) -> str:
    """Return what all methods' trainings share, in words."""
    return (
        f"{training.per_round} of {training.clients} clients a round, accuracy on "
        f"{counted(training.test_images, 'test image')}; clients train {training.profile}"
    )


def training_columns(report: Report) -> list[str]:
    """Return the columns of the table of methods."""
    columns = ["method", "rounds", "client MACs", "of the first's", "seconds", "images/s", "outside SGD"]
    return [*columns, *(f"test accuracy at {format_quantity(budget)}" for budget in report.budgets)]


def training_row(training: Training, report: Report) -> list[str]:
    """Return the cells of one method, in the order of ``training_columns``; a problem in place of its accuracies."""
    by_budget = {one.budget: one.accuracy for one in training.accuracies}
    first = report.trainings[0].compute
    cells = [_cell(by_budget.get(budget), "{:.1%}") for budget in report.budgets]
    return [
        training.label,
        f"{training.rounds:,}",
        format_quantity(training.compute),
        _cell(training.compute / first if first else None, "{:.1%}"),
        f"{training.seconds:.0f}",
        f"{training.images / training.seconds if training.seconds else 0.0:,.0f}",
        f"{training.outside_sgd:.1%}",
        *([training.problem, *cells[1:]] if training.problem and cells else cells),
    ]


def curve_row(training: Training, point: Point) -> list[str]:
    """Return the cells of one point of a method's curve."""
    macs = format_quantity(point.compute)
    return [training.label, str(point.round), f"{point.seconds:.0f} s", macs, f"{point.accuracy:.1%}"]


def training_words(training: Training) -> str:
    """Return what one method came to, in a line."""
    words = (
        f"{training.label}: {counted(training.rounds, 'round')}, {format_quantity(training.compute)} client MACs in "
        f"{training.seconds:.0f} s"
    )
    reached = [f"{one.accuracy:.1%} at {format_quantity(one.budget)}" for one in training.accuracies]
    return "; ".join(
        [words, *([training.problem] if training.problem else []), *([", ".join(reached)] if reached else [])]
    )


def compute_remarks(trainings: Sequence[Training]) -> list[str]:
    """Return of every method that has not the compute of the first one that it has not: its row says less then."""
    if not trainings or not trainings[0].compute:
        return []
    told = (unequal(training, trainings[0].compute) for training in trainings[1:])
    return [f"Not comparable: {remark}." for remark in told if remark is not None]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], figures: int) -> Iterator[str]:
    """Yield the lines of a Markdown table; columns from number ``figures`` on are on the right."""
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---:' if number >= figures else '---' for number in range(len(columns)))} |"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
