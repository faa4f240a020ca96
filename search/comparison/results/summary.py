"""Summary table of a study: means and standard deviations over seeds, as CSV, Markdown and on the terminal."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult
from fedpareto.supernet.common.formats.units import format_bytes, format_quantity

#: Columns of the CSV file.
_COLUMNS = (
    *("method", "seeds", "budget_macs", "macs", "accuracy_mean", "accuracy_std", "bytes_up", "bytes_down"),
    *("compute_macs", "rounds", "seconds", "search_seconds"),
    *("clients_accuracy_mean", "clients_accuracy_std", "clients_unserved"),
)


@dataclasses.dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation over seeds; the latter is 0 of a single seed."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeanStd":
        """Return mean and deviation of one or more values."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))

    def in_points(self, sign: Literal["", "+"] = "") -> str:
        """Return mean ± deviation times 100 as text; ``sign`` "+" shows the mean's sign; a single seed has no ±."""
        deviation = f" ± {100 * self.deviation:.2f}" if self.count > 1 else ""
        return f"{100 * self.mean:{sign}.2f}{deviation}"

    def cell(self, seeds: int, *, sign: Literal["", "+"] = "", unit: str = "") -> str:
        """Return ``in_points`` for a row of ``seeds`` seeds; it adds the number of values where some seeds lack one."""
        missing = "" if self.count == seeds else f" ({self.count} of {seeds})"
        return f"{self.in_points(sign)}{unit}{missing}"


@dataclasses.dataclass(frozen=True)
class Served:
    """Accuracy over the clients, each with the network of a trial that its device can run.

    Attributes:
        accuracy: mean over all clients; a client that can run no network counts as 0.
        unserved: share of the clients that can run no network.
    """

    accuracy: float
    unserved: float


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """A row of the table: a method over all its seeds, or a kind of yardstick, whose runs count together.

    Attributes:
        label: label of the method.
        seeds: number of seeds.
        accuracies: on the test images by budget; None where it has no network.
        macs: mean MACs of its networks by budget; None likewise.
        bytes_up: bytes that clients have sent; this and all that follows are means over the seeds with most networks.
        bytes_down: bytes that were sent to clients.
        compute: MACs of the clients' forward passes.
        rounds: rounds of training.
        seconds: time of the rounds.
        search_seconds: time of the search for all its networks; None where nothing is searched.
        clients_accuracy: mean over the clients, each with the network that it can run; None where it is not known.
        unserved: mean share of clients that can run no network.
    """

    label: str
    seeds: int
    accuracies: Sequence[MeanStd | None]
    macs: Sequence[float | None]
    bytes_up: float
    bytes_down: float
    compute: float
    rounds: float
    seconds: float
    search_seconds: float
    clients_accuracy: MeanStd | None = None
    unserved: float = 0.0


#: Accuracy over the clients, by an outcome's label and seed.
ServedClients = Mapping[tuple[str, int], Served]


def rows(
    labels: Sequence[str], budgets: Sequence[int], outcomes: Sequence[TrialResult], served: ServedClients | None = None
) -> list[ResultRow]:
    """Return a row for every method with an outcome, in the order of the labels; ``served`` where it is known."""
    by_label = {label: [outcome for outcome in outcomes if outcome.label == label] for label in labels}
    return [_row(label, budgets, found, served or {}) for label, found in by_label.items() if found]


def _row(label: str, budgets: Sequence[int], found: Sequence[TrialResult], served: ServedClients) -> ResultRow:
    clients = [served[key] for outcome in found if (key := (label, outcome.seed)) in served]
    at = [_networks(found, budget) for budget in budgets]
    # A yardstick's seed of which runs are missing has computed, and sent, less than the others.
    most = max(len(outcome.networks) for outcome in found)
    whole = [outcome for outcome in found if len(outcome.networks) == most]

    def mean(name: str) -> float:
        return statistics.fmean(getattr(outcome, name) for outcome in whole)

    return ResultRow(
        label,
        len(found),
        [MeanStd.of([network.test_accuracy for network in networks]) if networks else None for networks in at],
        [statistics.fmean(network.macs for network in networks) if networks else None for networks in at],
        mean("bytes_up"),
        mean("bytes_down"),
        mean("compute"),
        mean("rounds"),
        mean("seconds"),
        statistics.fmean(sum(network.search_seconds for network in outcome.networks) for outcome in found),
        MeanStd.of([each.accuracy for each in clients]) if clients else None,
        statistics.fmean(each.unserved for each in clients) if clients else 0.0,
    )


def _networks(found: Sequence[TrialResult], budget: int) -> list[MeasuredNetwork]:
    return [network for outcome in found for network in outcome.networks if network.budget == budget]


def header(budgets: Sequence[int]) -> list[str]:
    """Return the names of the columns for people."""
    return [
        "method",
        "seeds",
        *(f"accuracy at {format_quantity(budget)} MACs" for budget in budgets),
        "accuracy over clients",
        "sent up",
        "client compute",
        "rounds",
        "search",
    ]


def cells(row: ResultRow) -> list[str]:
    """Return a row for people: accuracies in per cent, mean ± standard deviation over seeds."""
    return [
        row.label,
        str(row.seeds),
        *("–" if found is None else found.cell(row.seeds, unit=" %") for found in row.accuracies),
        _clients_words(row),
        format_bytes(row.bytes_up) if row.bytes_up else "–",
        f"{format_quantity(row.compute)} MACs" if row.compute else "–",
        f"{row.rounds:.0f}" if row.rounds else "–",
        f"{row.search_seconds:.2f} s" if row.search_seconds else "–",
    ]


def _clients_words(row: ResultRow) -> str:
    if row.clients_accuracy is None:
        return "–"
    unserved = f" ({100 * row.unserved:.0f} % can run none)" if row.unserved else ""
    return f"{row.clients_accuracy.in_points()} %{unserved}"


def markdown_table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, its first column to the left."""
    every = [names, ["---", *["---:"] * (len(names) - 1)], *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


def to_markdown(found: Sequence[ResultRow], budgets: Sequence[int]) -> str:
    """Return the rows as Markdown."""
    return markdown_table(header(budgets), [cells(row) for row in found])


def to_csv(found: Sequence[ResultRow], budgets: Sequence[int]) -> str:
    """Return the rows as CSV, a line for every method and budget, with full precision; accuracies are shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in found:
        clients = row.clients_accuracy
        totals = (
            *(row.bytes_up, row.bytes_down, row.compute, row.rounds, row.seconds, row.search_seconds),
            *(("", "", "") if clients is None else (clients.mean, clients.deviation, row.unserved)),
        )
        for budget, accuracy, macs in zip(budgets, row.accuracies, row.macs, strict=True):
            if accuracy is not None:
                writer.writerow([row.label, row.seeds, budget, macs, accuracy.mean, accuracy.deviation, *totals])
    return text.getvalue()
