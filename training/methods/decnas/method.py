"""DecNAS: a network shrunk towards a budget by candidates that train on groups of clients, then fine-tuned.

Xu et al., "Federated Neural Architecture Search" (DecNAS, also FedNAS; 2020), after NetAdapt. An iteration asks for
0.025·0.96^(i−1) of the starting network's MACs less than the current network has, but never for less than the budget.
Every stage and dimension that can give that by itself makes a candidate (``candidates.py``), which inherits its slices
of the current network and trains on a group of clients of its own (``groups.py``) in every round of the loop, by FedAvg
within the group, until the race is over (``race.py``). The winner is the next current network. Within the budget it is
fine-tuned for ``rounds`` rounds of FedAvg, in which ``clients.per_round`` clients are drawn; in the search all clients
take part that can run a candidate, as that is what the groups divide.

The learning rate of the search is ``decnas.lr`` throughout, or ``client.lr`` where that is left out; the schedule of
``client.lr_schedule`` runs over the fine-tuning alone. The server's momentum, too, is that of the fine-tuning.

The current network's weights are the supernet's slices, those of candidates are branches: the server holds as many
networks as there are candidates, in a round twice as many, as each is averaged in a fold of its own; so does the disk a
checkpoint.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.supernet.architecture_file import ARCHITECTURE, architecture_text
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity, parse_quantity
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.methods.decnas.accounting import ACCOUNTING, NOTHING, Account, Costs, naive_cost
from fedpareto.training.methods.decnas.candidates import Candidate, least_macs, nearest_candidates
from fedpareto.training.methods.decnas.entrants import Clients
from fedpareto.training.methods.decnas.race import Racer, after_round, compared_rounds, in_the_race, winner
from fedpareto.training.methods.decnas.state import Iteration, Search, search_from_json
from fedpareto.training.methods.fedavg import FedAvg
from fedpareto.training.methods.initial_network import read_entry
from fedpareto.training.methods.protocol import Decision, MethodContext
from fedpareto.training.runs.state import Origin, RunState

#: What the current network is called among those that are measured; its weights are the supernet's.
_CURRENT = "current"


class DecNas:
    """Shrinks one network, then trains it.

    Args:
        ground: what to decide with.
        start: the network that is shrunk.
        budget: MACs it is shrunk to.
        clients: those that train.
    """

    def __init__(self, ground: MethodContext, start: CacheEntry, budget: int, clients: Clients) -> None:
        self._ground, self._start, self._budget, self._clients = ground, start, budget, clients
        self._settings = ground.config.decnas
        self._first = self._begun(Search(start))

    @property
    def searches(self) -> bool:
        """Whether there is anything to search."""
        return self._first.iteration is not None

    @property
    def weight_by_examples(self) -> bool:
        """Updates weigh as many as the client's images."""
        return True

    def start(self, drawn: Tensors) -> Tensors:
        """Return the tensors as they were drawn."""
        return drawn

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``: every group its candidate, or a draw of clients the result."""
        search = self._search(state)
        if search.iteration is None:
            return self._tuning(search.current).assign(state, available)
        present = set(available)
        pairs = [(racer, one) for racer in _training(search) for one in racer.clients if one in present]
        rate = self._ground.config.client.lr if self._settings.lr is None else self._settings.lr
        return RoundPlan(
            number=state.round + 1,
            learning_rate=rate,
            beta=None,
            assigned={client: racer.candidate.entry for racer, client in pairs},
            weights={client: 1.0 for _, client in pairs},
            branches={client: racer.name for racer, client in pairs},
        )

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with what the round has cost."""
        search = self._search(state)
        costs = Costs(answers.traffic.up, answers.traffic.down, answers.compute)
        if search.iteration is None:
            return _with(state, dataclasses.replace(search, tuning=search.tuning + costs))
        iteration = dataclasses.replace(search.iteration, spent=search.iteration.spent + costs)
        searching = dataclasses.replace(search, iteration=iteration)
        return dataclasses.replace(_with(state, searching), origin=None)

    def branches(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the candidates in the race."""
        iteration = self._search(state).iteration
        racers = () if iteration is None else iteration.racers
        return {racer.name: racer.candidate.entry for racer in in_the_race(racers)}

    def networks_to_evaluate(self, state: RunState) -> Mapping[str, CacheEntry]:
        """Return the candidates that train, and the current network if its accuracy is not known."""
        search = self._search(state)
        current = {_CURRENT: search.current} if search.accuracy is None and search.iteration is not None else {}
        return current | {racer.name: racer.candidate.entry for racer in _training(search)}

    def after_evaluation(self, state: RunState, accuracies: Mapping[str, float]) -> Decision:
        """Return the race after a round; where it is over, the winner and the next iteration or the fine-tuning."""
        search = self._search(state)
        if search.iteration is None:
            return Decision(state)
        accuracy = accuracies[_CURRENT] if search.accuracy is None else search.accuracy
        racers = self._clients.regrouped(after_round(search.iteration.racers, accuracies, self._settings))
        iteration = dataclasses.replace(search.iteration, racers=tuple(racers))
        search = dataclasses.replace(search, accuracy=accuracy, iteration=iteration)
        if any(racer.status == "training" for racer in racers):
            return Decision(_with(state, search))
        best = winner(racers, accuracy, search.current.macs)
        search = self._begun(_concluded(search, iteration, best))
        origin = Origin(state.round, state.compute) if search.iteration is None else None
        # The probes are another network from here on: accuracies compare with no earlier round's.
        return Decision(dataclasses.replace(_with(state, search), best=None, origin=origin), best.name)

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return the current network."""
        return [self._search(state).current]

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return the current network, and what was spent until it was."""
        search, budget = self._search(state), self._budget
        macs = search.current.macs
        account = Account(macs, budget, search.spent, search.straightforward, search.tuning, search.history)
        return {ARCHITECTURE: architecture_text(search.current.architecture), ACCOUNTING: account.text()}

    def _search(self, state: RunState) -> Search:
        return search_from_json(self._ground.space, state.method) if state.method else self._first

    def _begun(self, search: Search) -> Search:
        """Return the search with the next iteration begun, or with none where the budget is met."""
        number, space, settings = len(search.history) + 1, self._ground.space, self._settings
        if search.current.macs <= self._budget:
            return dataclasses.replace(search, iteration=None)
        step = settings.step * self._start.macs * settings.decay ** (number - 1)
        target = max(self._budget, min(search.current.macs - 1, math.floor(search.current.macs - step)))
        target, found = nearest_candidates(space, search.current, target, self._runnable)
        racers = tuple(self._clients.assign(found)) if found else ()
        if not racers:
            return dataclasses.replace(search, iteration=None)
        able = {one.entry.architecture: self._clients.able(one.entry) for one in found}
        images, client = self._clients.images, self._ground.config.client
        would = naive_cost(space, able, images, client, settings.most_rounds)
        return dataclasses.replace(search, iteration=Iteration(number, target, racers, NOTHING, would))

    def _runnable(self, candidate: Candidate) -> bool:
        return bool(self._clients.able(candidate.entry))

    def _tuning(self, entry: CacheEntry) -> FedAvg:
        return FedAvg(self._ground, entry)


def decnas(ground: MethodContext) -> DecNas:
    """Return the method.

    Raises:
        UserError: the architecture cannot be read or is not in the space, the budget is none it can be shrunk to, or no
            client can run any first candidate.
    """
    if ground.labels is None:
        raise UserError("method decnas groups clients by their labels, and those of connected clients are not known")
    start, budget = _start(ground), parse_quantity(ground.config.decnas.budget or "")
    least = least_macs(ground.space, start.architecture)
    if not least <= budget < start.macs:
        raise UserError(
            f"decnas.budget is {ground.config.decnas.budget}, but shrinking takes the network of {start.macs:,} MACs "
            f"to {least:,} at the least; name a budget between them"
        )
    method = DecNas(ground, start, budget, Clients(ground.clients, ground.labels, ground.config.client.batch))
    if not method.searches:
        raise UserError(
            f"no client can run any network a little smaller than the {format_quantity(start.macs)} MACs that decnas "
            "starts from; raise clients.max_macs or name a smaller decnas.architecture"
        )
    return method


def _start(ground: MethodContext) -> CacheEntry:
    path = ground.config.decnas.architecture
    if path is None:
        return make_entry(ground.space, supernet_architecture(ground.space))
    return read_entry(ground, "decnas.architecture", path)


def _training(search: Search) -> Sequence[Racer]:
    racers = () if search.iteration is None else search.iteration.racers
    return [racer for racer in racers if racer.status == "training"]


def _concluded(search: Search, iteration: Iteration, best: Racer) -> Search:
    """Return the search with an iteration's winner as its current network."""
    entry, accuracy = best.candidate.entry, best.accuracies[-1]
    told = {
        "iteration": iteration.number,
        "target": iteration.target,
        "candidates": [
            {
                "name": racer.name,
                "macs": racer.candidate.entry.macs,
                "accuracies": list(racer.accuracies),
                "dropped": racer.status == "dropped",
            }
            for racer in iteration.racers
        ],
        "compared_after": compared_rounds(in_the_race(iteration.racers)),
        "winner": best.name,
        "macs": entry.macs,
        "accuracy": accuracy,
    }
    return dataclasses.replace(
        search,
        current=entry,
        accuracy=accuracy,
        spent=search.spent + iteration.spent,
        straightforward=search.straightforward + iteration.straightforward,
        history=(*search.history, told),
    )


def _with(state: RunState, search: Search) -> RunState:
    return dataclasses.replace(state, method=search.to_json())
