"""State of a search between rounds, and its JSON form in the run's state."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.common.formats.json_fields import Fields
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.methods.decnas.accounting import NOTHING, Costs, costs_of
from fedpareto.training.methods.decnas.candidates import Candidate, Dimension
from fedpareto.training.methods.decnas.race import Racer, Status


@dataclasses.dataclass(frozen=True)
class Iteration:
    """Iteration of the search: candidates for one target.

    Attributes:
        number: number of the iteration, from 1.
        target: most MACs of its candidates.
        racers: the candidates, their groups and their accuracies.
        spent: costs of its clients so far.
        straightforward: costs of all candidates on all clients for the most rounds.
    """

    number: int
    target: int
    racers: tuple[Racer, ...]
    spent: Costs
    straightforward: Costs


@dataclasses.dataclass(frozen=True)
class Search:
    """State of a search between two rounds.

    Attributes:
        current: the network that candidates come from; its weights are the supernet's slices.
        accuracy: its accuracy on validation images; None before it was measured.
        iteration: the iteration under way; None once the search is over.
        spent: costs of the clients in whole iterations.
        straightforward: costs of the straightforward version of those iterations.
        tuning: costs of the fine-tuning.
        history: for every whole iteration its number, target, candidates, the rounds after which they were compared,
            the winner, its MACs and accuracy.
    """

    current: CacheEntry
    accuracy: float | None = None
    iteration: Iteration | None = None
    spent: Costs = NOTHING
    straightforward: Costs = NOTHING
    tuning: Costs = NOTHING
    history: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        return {
            "current": self.current.architecture.to_json(),
            "accuracy": self.accuracy,
            "iteration": self.iteration and _iteration_to_json(self.iteration),
            "spent": dataclasses.asdict(self.spent),
            "straightforward": dataclasses.asdict(self.straightforward),
            "tuning": dataclasses.asdict(self.tuning),
            "history": list(self.history),
        }


def search_from_json(space: SearchSpace, values: Mapping[str, Any]) -> Search:
    """Return the search that JSON values describe; the inverse of ``Search.to_json``.

    Raises:
        UserError: a field is missing, of another type or out of range.
    """
    fields = Fields(values, "the state of the search")
    return Search(
        current=make_entry(space, architecture_from_json(fields.value("current"))),
        accuracy=fields.number("accuracy", 0, 1) if fields.has("accuracy") else None,
        iteration=_iteration_from_json(space, fields.within("iteration")) if fields.has("iteration") else None,
        spent=costs_of(fields.within("spent")),
        straightforward=costs_of(fields.within("straightforward")),
        tuning=costs_of(fields.within("tuning")),
        history=tuple(one.values for one in fields.each("history")),
    )


def _iteration_to_json(iteration: Iteration) -> dict[str, Any]:
    return {
        "number": iteration.number,
        "target": iteration.target,
        "racers": [_racer_to_json(racer) for racer in iteration.racers],
        "spent": dataclasses.asdict(iteration.spent),
        "straightforward": dataclasses.asdict(iteration.straightforward),
    }


def _iteration_from_json(space: SearchSpace, fields: Fields) -> Iteration:
    return Iteration(
        number=fields.whole("number"),
        target=fields.whole("target"),
        racers=tuple(_racer_from_json(space, racer) for racer in fields.each("racers")),
        spent=costs_of(fields.within("spent")),
        straightforward=costs_of(fields.within("straightforward")),
    )


def _racer_to_json(racer: Racer) -> dict[str, Any]:
    return {
        "stage": racer.candidate.stage,
        "dimension": racer.candidate.dimension,
        "architecture": racer.candidate.entry.architecture.to_json(),
        "clients": list(racer.clients),
        "accuracies": list(racer.accuracies),
        "status": racer.status,
    }


def _racer_from_json(space: SearchSpace, fields: Fields) -> Racer:
    entry = make_entry(space, architecture_from_json(fields.value("architecture")))
    candidate = Candidate(fields.whole("stage"), fields.choice("dimension", get_args(Dimension)), entry)
    clients, accuracies = fields.wholes("clients"), fields.numbers("accuracies", 0, 1)
    return Racer(candidate, clients, accuracies, fields.choice("status", get_args(Status)))
