"""Table of a round's probes: their accuracy with its interval, what else was measured, and remarks on what is odd."""

from collections.abc import Iterator, Mapping, Sequence

from fedpareto.supernet.common.formats.accuracies import format_accuracy
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import print_table, say
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.evaluation.measures import doubts
from fedpareto.training.trackers.records import RoundRecord

#: Columns of what was measured beside the accuracy; one without any value is left out.
_COLUMNS: Mapping[str, str] = {
    "balanced": "balanced\naccuracy",
    "macro_f1": "macro\nF1",
    "top5": "top-5",
    "calibration_error": "calibration\nerror",
}


def print_probes(record: RoundRecord) -> None:
    """Print the probes of an evaluated round, and a remark on each whose accuracy says little."""
    probes = record.probes
    columns = [name for name in _COLUMNS if any(name in probe.further for probe in probes)]
    rows = [
        (
            f"{probe.macs:,}",
            f"{probe.params:,}",
            format_accuracy(probe.accuracy, probe.images),
            *(_percent(probe.further.get(name)) for name in columns),
        )
        for probe in probes
    ]
    title = f"validation accuracy after round {record.round}{_on(probes)}"
    print_table(title, ("MACs", "params", "accuracy", *(_COLUMNS[name] for name in columns)), rows, figures=0)
    for line in (*client_spreads(probes), *remarks(probes)):
        say(line)


def client_spreads(probes: Sequence[Probe]) -> Iterator[str]:
    """Yield the spread over clients of the most accurate probe's accuracy, in words; nothing where it is not known."""
    best = max(probes, key=lambda probe: probe.accuracy)
    if best.clients is not None:
        clients = best.clients
        yield (
            f"the network of {format_quantity(best.macs)} MACs over {counted(clients.clients, 'client')}: mean "
            f"accuracy {clients.mean:.1%}, worst tenth {clients.worst_decile:.1%}, "
            f"standard deviation {clients.deviation:.1%}"
        )


def remarks(probes: Sequence[Probe]) -> Iterator[str]:
    """Yield a remark on every probe whose accuracy says little."""
    for probe in probes:
        doubt = None if probe.measures is None else doubts(probe.accuracy, probe.measures)
        if doubt is not None:
            yield f"the network of {format_quantity(probe.macs)} MACs: {doubt}"


def _on(probes: Sequence[Probe]) -> str:
    known = {probe.images for probe in probes if probe.images is not None}
    return f", on {counted(known.pop(), 'image')} (95 % interval)" if len(known) == 1 else ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
