"""Direct federated architecture search (Garg et al., 2021): blocks are chosen while their weights are trained.

Every block slot of a first network has a logit for each block that lies inside its own block, and a logit for no block
where its stage may end before it. A client trains the slices around all choices that are still open: one path a step,
drawn from the logits, which learn with the weights (``training/clients/path_sampling.py``). The server takes the mean
of weights and logits over the clients, by their numbers of images, and settles a block once its best choice is far
enough ahead. Slices then shrink to the open choices. The best network in the end can be deployed with the weights that
it has been trained with.

Widths, stem and resolution are those of the first network. That is the supernet if every client can run it, else the
largest cache entry that every client can run. A network that the user names may be too large for some clients; those
are drawn only once the open choices have shrunk to a network that they can run. Adam's moments begin at 0 in every
round, as a client may never be asked again.

With ``dfnas.personal`` every client has logits, and so blocks, of its own, and only weights are shared. Then the best
network by the mean of all clients' logits is evaluated, and written as the run's architecture.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.supernet.architecture_file import ARCHITECTURE, architecture_text
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.clients.paths import paths_through
from fedpareto.training.local_objective import LocalObjective, PathSampling, Standard
from fedpareto.training.methods.dfnas.decisions import Decisions, decisions_from_json, mean_of, undecided
from fedpareto.training.methods.initial_network import largest_for_all, named_entry
from fedpareto.training.methods.plans import able_among, equal_plan
from fedpareto.training.methods.protocol import MethodContext, SupernetMethod
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.runs.folder import ARCHITECTURES
from fedpareto.training.runs.state import RunState

#: Whose decisions those are that all clients share.
_EVERYONE = "everyone"


class Dfnas(SupernetMethod):
    """Method that trains paths through a network, and narrows them down to one.

    Args:
        ground: context of the run.
        start: the first network.
    """

    def __init__(self, ground: MethodContext, start: CacheEntry) -> None:
        self._ground, self._settings, self._start = ground, ground.config.dfnas, start
        self._paths = paths_through(ground.space, start.architecture)
        self._entry = functools.lru_cache(maxsize=4096)(functools.partial(make_entry, ground.space))

    @property
    def weight_by_examples(self) -> bool:
        """True, as an update weighs as much as the client has images."""
        return True

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``, among the clients that can run their search's open choices.

        Raises:
            EngineError: no such client is available.
            UserError: the first network is not the one that the run began with.
        """
        config = self._ground.config
        found, fresh = self._decisions(state), undecided(self._paths)
        open_ = {owner: self._entry(search.hull(self._paths)) for owner, search in found.items()}
        first = self._entry(fresh.hull(self._paths))
        hulls = {client: open_.get(self._owner(client), first) for client in available}
        drawn = drawn_clients(config, state, able_among(self._ground, available, hulls.__getitem__))
        objectives = {client: self._objective(found.get(self._owner(client), fresh)) for client in drawn}
        return equal_plan(config, state, {client: hulls[client] for client in drawn}, objectives)

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with the decisions that follow from the clients' logits."""
        found, by_owner = self._decisions(state), dict[str, list[int]]()
        # In the order of their numbers: sums must not depend on who was asked twice.
        for client in sorted(answers.logits):
            by_owner.setdefault(self._owner(client), []).append(client)
        for owner, members in by_owner.items():
            weighed = [(answers.weight(client), answers.logits[client]) for client in members]
            before = found.get(owner, undecided(self._paths))
            found[owner] = before.answered(self._paths, weighed, self._settings.gap)
        kept = {owner: found[owner].to_json() for owner in sorted(found)}
        start = self._start.architecture.to_json()
        return dataclasses.replace(state, method={"start": start, "decisions": kept})

    def probes(self, state: RunState) -> Sequence[CacheEntry]:
        """Return the best network so far."""
        found = list(self._decisions(state).values()) or [undecided(self._paths)]
        best = found[0] if len(found) == 1 else mean_of(found)
        return [self._entry(self._paths.network(best.best(self._paths)))]

    def files(self, state: RunState) -> Mapping[str, str]:
        """Return the best network so far and, in personal searches, the best one of every client that has trained."""
        files = {ARCHITECTURE: architecture_text(self.probes(state)[0].architecture)}
        if self._settings.personal:
            files[ARCHITECTURES] = "".join(
                json.dumps({"client": int(owner), "architecture": self._best_of(search)}) + "\n"
                for owner, search in sorted(self._decisions(state).items(), key=lambda item: int(item[0]))
            )
        return files

    def _owner(self, client: int) -> str:
        return str(client) if self._settings.personal else _EVERYONE

    def _objective(self, search: Decisions) -> LocalObjective:
        logits, settings = search.asked(self._paths), self._settings
        if all(slot is None for slot in logits):
            return Standard()
        target = 0 if settings.macs_target is None else parse_quantity(settings.macs_target)
        return PathSampling(logits, settings.lr, settings.macs_penalty / self._start.macs, target)

    def _best_of(self, search: Decisions) -> object:
        return self._paths.network(search.best(self._paths)).to_json()

    def _decisions(self, state: RunState) -> dict[str, Decisions]:
        start = state.method.get("start", self._start.architecture.to_json())
        if start != self._start.architecture.to_json():
            raise UserError(
                "dfnas.architecture holds another network than when the run was started; restore the file, or start a "
                f"new run with another {option('output')}"
            )
        return {owner: decisions_from_json(value) for owner, value in state.method.get("decisions", {}).items()}


def dfnas(ground: MethodContext) -> Dfnas:
    """Make the method.

    Raises:
        UserError: the first network cannot be read or is not in the space, or there is none that clients can run.
    """
    path, field = ground.config.dfnas.architecture, "dfnas.architecture"
    if path is not None:
        return Dfnas(ground, named_entry(ground, field, path))
    supernet = make_entry(ground.space, supernet_architecture(ground.space))
    return Dfnas(ground, largest_for_all(ground, field, [*ground.entries, supernet]))
