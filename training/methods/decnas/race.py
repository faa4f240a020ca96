"""Race of an iteration's candidates: it decides which ones train on, which are dropped and which wins.

After every round each candidate that trained in it has one more accuracy on validation images. Candidates are compared
with each other after the same number of rounds, always: more training is worth more than most differences between
networks. A round in which no client of a candidate has answered counts as one of its rounds.

- **Early dropping**: from round ``drop_after`` on, of those that trained in the round the ones below their median are
  dropped. Candidates that have stopped take no part in that: what more rounds would have made of them is not known.
- **Dynamic rounds**: a candidate stops once two rounds have improved it by less than ``gain``, but not before
  ``least_rounds`` (nor before it has three accuracies, with two rounds between the first and the last), and at the
  latest after ``most_rounds``. This compares it with itself.
- **The winner** is judged by accuracies after as many rounds as the candidate with the fewest has, of those that are
  not dropped, against the current network's as it is. One that gained beats any that did not. Of those that gained, the
  one that gained most wins; of the others, the one that lost least for every MAC it saves.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.methods.decnas.candidates import Candidate

Status = Literal["training", "stopped", "dropped"]


@dataclasses.dataclass(frozen=True)
class Racer:
    """Racer: a candidate in its race.

    Attributes:
        candidate: the network.
        clients: its group of clients.
        accuracies: accuracies on validation images, after each of its rounds.
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
    trained = [racer for racer in measured if racer.status == "training"]
    if not trained:
        return measured
    median = statistics.median(accuracies_after(compared_rounds(trained), trained))
    return [
        dataclasses.replace(racer, status=_status(racer, median, settings)) if racer.status == "training" else racer
        for racer in measured
    ]


def compared_rounds(racers: Sequence[Racer]) -> int:
    """Return the number of rounds after which one or more racers can be compared: the fewest rounds of any of them."""
    return min(len(racer.accuracies) for racer in racers)


def accuracies_after(rounds: int, racers: Sequence[Racer]) -> list[float]:
    """Return the racers' accuracies after their first ``rounds`` rounds."""
    return [racer.accuracies[rounds - 1] for racer in racers]


def in_the_race(racers: Sequence[Racer]) -> list[Racer]:
    """Return the racers that are not dropped."""
    return [racer for racer in racers if racer.status != "dropped"]


def _status(racer: Racer, median: float, settings: DecNasConfig) -> Status:
    accuracies = racer.accuracies
    rounds = len(accuracies)
    if rounds >= settings.drop_after and accuracies[-1] < median:
        return "dropped"
    slow = rounds >= max(3, settings.least_rounds) and accuracies[-1] - accuracies[-3] < settings.gain
    return "stopped" if slow or rounds >= settings.most_rounds else "training"


def winner(racers: Sequence[Racer], accuracy: float, macs: int) -> Racer:
    """Return the racer that the search goes on with; of equals the one that saves more MACs, then the first.

    A gain is not divided by what is saved: that would prefer the small gain of a network that hardly shrank.

    Args:
        racers: all of the iteration, at least one of them not dropped.
        accuracy: accuracy of the current network, from which gains and losses count.
        macs: MACs of the current network, from which savings count.
    """
    left = in_the_race(racers)
    after = dict(zip((racer.name for racer in left), accuracies_after(compared_rounds(left), left), strict=True))

    def merit(racer: Racer) -> tuple[bool, float, int]:
        gain, saved = after[racer.name] - accuracy, macs - racer.candidate.entry.macs
        return gain > 0, gain if gain > 0 else gain / saved, saved

    return max(left, key=merit)
