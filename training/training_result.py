"""Result of a training: the run's folder, and how accurate its networks became round by round."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.cache.figures import drawn, legend_below, notebook_html, write
from fedpareto.supernet.common.formats.accuracies import format_accuracy
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted


@dataclasses.dataclass(frozen=True, repr=False)
class TrainingResult:
    """A run that was trained, or interrupted at a round's edge.

    Attributes:
        folder: of the run; ``open_run`` finds subnets in it, ``train(resume=folder)`` goes on with it.
        rounds: rounds done.
        finished: whether nothing is left to do.
        records: a record of every round, as in the run's ``metrics.jsonl``.
    """

    folder: Path
    rounds: int
    finished: bool
    records: tuple[Mapping[str, Any], ...]

    @property
    def accuracies(self) -> dict[int, float]:
        """Validation accuracy of every probe network of the last evaluation, by its MACs."""
        return {probe["macs"]: probe["accuracy"] for probe in self._last_probes}

    @property
    def _last_probes(self) -> Sequence[Mapping[str, Any]]:
        evaluated = [record["probes"] for record in self.records if record["probes"]]
        return evaluated[-1] if evaluated else ()

    def __repr__(self) -> str:
        done = counted(self.rounds, "round")
        reached = ", ".join(
            f"{format_accuracy(probe['accuracy'], probe.get('images'))} at {format_quantity(probe['macs'])} MACs"
            for probe in self._last_probes
        )
        measured = f"; validation accuracy {reached}" if reached else ""
        return f"TrainingResult({self.folder}: {done}{'' if self.finished else ', not finished'}{measured})"

    def _repr_html_(self) -> str:
        return notebook_html(repr(self), self._svg())

    def _svg(self) -> str:
        """Plot of accuracies over the rounds, as an ``<svg>`` element; empty before the first evaluation."""
        evaluated = [record for record in self.records if record["probes"]]
        if not evaluated:
            return ""
        written = io.StringIO()
        with drawn(8, 4) as figure:
            axes = figure.add_subplot()
            lines = []
            for number, probe in enumerate(evaluated[-1]["probes"]):
                shares = [100 * record["probes"][number]["accuracy"] for record in evaluated]
                label = f"{format_quantity(probe['macs'])} MACs"
                lines += axes.plot([record["round"] for record in evaluated], shares, marker="o", ms=3, label=label)
            axes.set_xlabel("round")
            axes.set_ylabel("validation accuracy (%)")
            axes.grid(alpha=0.3)
            legend_below(figure, lines)
            write(figure, written, "svg")
        return "<svg " + written.getvalue().partition("<svg ")[2]
