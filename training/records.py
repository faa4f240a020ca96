"""What is recorded of a round."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from training.evaluation import Probe


@dataclasses.dataclass(frozen=True)
class RoundRecord:
    """One line of ``metrics.jsonl``.

    Attributes:
        round: number of the round, from 1.
        train_loss: mean training loss of the clients' last epochs, weighted by examples.
        lr: learning rate of the clients.
        beta: weight β_t of the largest network.
        clients: what every drawn client trained: client, macs, and examples and loss or the kind of failure.
        failures: failed updates of this round by kind.
        bytes_up: bytes of tensors the clients sent.
        bytes_down: bytes of tensors the clients were sent.
        seconds: wall time of the round with its checkpoint, without evaluation.
        sgd_seconds: time the clients spent in their local epochs.
        overhead_share: share of ``seconds`` that is not local training.
        evaluation_seconds: time of this round's evaluation; 0 if there was none.
        probes: validation accuracy of the probes; empty if there was no evaluation.
        trained: how often every cache entry has been trained so far.
    """

    round: int
    train_loss: float
    lr: float
    beta: float
    clients: tuple[Mapping[str, Any], ...]
    failures: Mapping[str, int]
    bytes_up: int
    bytes_down: int
    seconds: float
    sgd_seconds: float
    overhead_share: float
    evaluation_seconds: float
    probes: tuple[Probe, ...]
    trained: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return dataclasses.asdict(self)

    @property
    def mean_accuracy(self) -> float | None:
        """Mean validation accuracy of the probes, or None without evaluation."""
        if not self.probes:
            return None
        return sum(probe.accuracy for probe in self.probes) / len(self.probes)
