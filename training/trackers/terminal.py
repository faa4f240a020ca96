"""Progress on the terminal: rounds, clients, time left, and a line for every evaluation."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedpareto.supernet.common.formats.accuracies import format_accuracy
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import progress_bar
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.trackers.probe_table import remarks
from fedpareto.training.trackers.records import LostRound, RoundRecord


class TerminalProgress:
    """Tracker that shows a bar over all clients of all rounds, and prints evaluated rounds on standard error.

    Without a number of ``rounds`` the number is estimated from the share of the training that is done.
    """

    def __init__(self, rounds: int | None, clients_per_round: int, done: int) -> None:
        self._per_round, self._searching = clients_per_round, 0
        self._of = "" if rounds is None else f"/{rounds}"
        self._progress = progress_bar()
        self._task = self._progress.add_task(
            f"round {done + 1}{self._of}",
            total=None if rounds is None else rounds * clients_per_round,
            completed=done * clients_per_round,
        )
        self._progress.start()

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Move the bar on."""
        completed = (round_number - 1) * self._per_round + done
        self._progress.update(self._task, completed=completed, description=f"round {round_number}{self._of}")

    def round_done(self, record: RoundRecord) -> None:
        """Print the probes' accuracies of an evaluated round, and every failure."""
        self._print_failures(record)
        if not record.done:
            self._searching = record.round
        elif not self._of:
            trained = record.round - self._searching
            self._progress.update(self._task, total=round((self._searching + trained / record.done) * self._per_round))
        if record.tested:
            low, high = min(record.tested.values()), max(record.tested.values())
            self._progress.console.print(
                f"round {record.round}{self._of}: validation accuracy of {counted(len(record.tested), 'network')} of "
                f"the search: {low:.1%} to {high:.1%}"
            )
        for kind, count in Counter(failure["failure"] for failure in record.evaluation_failures).items():
            self._progress.console.print(f"round {record.round}: {count} failed in the evaluation ({kind})")
        if record.probes:
            probes = "  ".join(
                f"{format_quantity(p.macs)} {format_accuracy(p.accuracy, p.images)}" for p in record.probes
            )
            parts = "; ".join(filter(None, (", ".join(_told(record)), f"validation accuracy by MACs: {probes}")))
            self._progress.console.print(f"round {record.round}{self._of}: {parts}")
            odd = list(remarks(record.probes))
            if odd:
                more = f"; and {counted(len(odd) - 1, 'other')} alike" if len(odd) > 1 else ""
                self._progress.console.print(f"round {record.round}{self._of}: {odd[0]}{more}")

    def round_lost(self, record: LostRound) -> None:
        """Print every failure; the command itself tells the user how the run ended."""
        self._print_failures(record)

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Do nothing, as the commands name the checkpoint that matters."""

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def _print_failures(self, record: RoundRecord | LostRound) -> None:
        for kind, count in record.failures.items():
            self._progress.console.print(f"round {record.round}: {count} failed ({kind})")


def _told(record: RoundRecord) -> list[str]:
    """Words for a round's training, as far as a private run does not withhold them, and for its privacy."""
    told = []
    if record.train_loss is not None:
        told.append(f"loss {record.train_loss:.3f}")
    if record.seconds is not None:
        told.append(f"{record.seconds:.1f} s")
    if record.overhead_share is not None:
        told.append(f"{record.overhead_share:.1%} of it not SGD")
    if record.epsilon is not None:
        told.append(f"ε {record.epsilon:.2f} at δ {record.delta:.2g}")
    if record.clipped is not None:
        told.append(f"{record.clipped:.0%} of updates clipped")
    return told
