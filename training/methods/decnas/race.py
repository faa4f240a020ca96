"""The race of an iteration's candidates: who goes on training, who is dropped, who wins.

After every round each candidate in the race has one more accuracy on validation images.

- **Early dropping**: from round ``drop_after`` on, those that trained and are below the median of the race are dropped.
  The race are all that are not dropped, each with its latest accuracy. Candidates that have stopped are not dropped:
  others have trained longer since.
- **Dynamic rounds**: a candidate stops once two rounds have gained it less than ``gain``, but not before
  ``least_rounds`` (nor before it has three accuracies, which two rounds lie between), and at the latest after
  ``most_rounds``.
- **The winner** has lost the least accuracy against the current network for every MAC it saves.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from training.methods.decnas.candidates import Candidate
from training.methods.settings import DecNasConfig

Status = Literal["training", "stopped", "dropped"]


@dataclasses.dataclass(frozen=True)
class Racer:
    """A candidate in its race.

    Attributes:
        candidate: the network.
        clients: its group.
        accuracies: on validation images, after each of its rounds.
        status: whether it goes on training, has stopped, or was dropped.
    """

    candidate: Candidate
    clients: tuple[int, ...]
    accuracies: tuple[float, ...] = ()
    status: Status = "training"

    @property
    def name(self) -> str:
        """Name of the candidate."""
        return self.candidate.name


def after_round(racers: Sequence[Racer], accuracies: Mapping[str, float], settings: DecNasConfig) -> list[Racer]:
    """Return the racers after a round, with the accuracy of every candidate that trained in it by name."""
    measured = [
        dataclasses.replace(racer, accuracies=(*racer.accuracies, accuracies[racer.name]))
        if racer.status == "training"
        else racer
        for racer in racers
    ]
    median = statistics.median(racer.accuracies[-1] for racer in measured if racer.status != "dropped")
    return [
        dataclasses.replace(racer, status=_status(racer, median, settings)) if racer.status == "training" else racer
        for racer in measured
    ]


def _status(racer: Racer, median: float, settings: DecNasConfig) -> Status:
    accuracies = racer.accuracies
    rounds = len(accuracies)
    if rounds >= settings.drop_after and accuracies[-1] < median:
        return "dropped"
    slow = rounds >= max(3, settings.least_rounds) and accuracies[-1] - accuracies[-3] < settings.gain
    return "stopped" if slow or rounds >= settings.most_rounds else "training"


def winner(racers: Sequence[Racer], accuracy: float, macs: int) -> Racer:
    """Return the racer that has lost the least accuracy for every MAC saved; of equals the first.

    Losses and savings count against the current network, which has an ``accuracy`` and ``macs``.
    """

    def loss(racer: Racer) -> float:
        return (accuracy - racer.accuracies[-1]) / (macs - racer.candidate.entry.macs)

    return min((racer for racer in racers if racer.status != "dropped"), key=loss)
