"""Mean accuracy over the clients of a study, each with the largest network that its own device can run.

FEAST (2026) calls it population-weighted accuracy. It is computed from the results of finished trials and the clients'
limits, which the study and the seed decide. No run and no image is looked at again.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult
from fedpareto.search.comparison.results.summary import Served
from fedpareto.search.comparison.studies.study import Study
from fedpareto.search.comparison.studies.yardsticks import row_label
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import Capability, capabilities
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.sources import source

#: Reason in the error about a result that does not fit the study.
_OTHERS = "a network of another space"


def served_clients(study: Study, outcomes: Sequence[TrialResult]) -> dict[tuple[str, int], Served]:
    """Return the clients' mean accuracy with the networks of each outcome, by label and seed.

    An outcome without a network, and a row of yardsticks that lacks one, is left out.

    Raises:
        UserError: a network is not in the study's space, or the clients' limits cannot be read.
    """
    configs, space = _configs(study), load_space(study.trials[0].config.space)
    found = {}
    for outcome in outcomes:
        networks = [network for network in outcome.networks if network.budget in study.budgets]
        wanted = 1 if outcome.label in study.labels else len(study.budgets)
        if len(networks) >= wanted:
            config = configs[outcome.label]
            clients = capabilities(config.clients, _with_classes(space, networks), outcome.seed)
            batch = config.client.batch_size or source(config.data.name).batch_size
            found[outcome.label, outcome.seed] = served(space, networks, clients, batch)
    return found


def served(
    space: SearchSpace, networks: Sequence[MeasuredNetwork], clients: Sequence[Capability], batch: int
) -> Served:
    """Return the mean accuracy over ``clients``, each with the network of the largest budget that it can run.

    A client that can run none of them is not served: its accuracy is 0. All can run a linear model.

    Args:
        space: search space of the networks, with any number of classes.
        networks: networks of one trial, with their accuracies on the test images.
        clients: limits of each client.
        batch: images of a batch, for clients with a limit on memory.

    Raises:
        UserError: a network is not in the space.
    """
    space = _with_classes(space, networks)
    largest_first = [
        (_entry(space, network), network.test_accuracy)
        for network in sorted(networks, key=lambda network: -network.budget)
    ]
    total, unserved = 0.0, 0
    for client, count in Counter(clients).items():
        able = [accuracy for entry, accuracy in largest_first if entry is None or client.runs(entry, batch)]
        total += count * (able[0] if able else 0.0)
        unserved += 0 if able else count
    return Served(total / len(clients), unserved / len(clients))


def _configs(study: Study) -> Mapping[str, RunConfig]:
    """Return a configuration with the study's clients for every row of its table."""
    clients = study.trials[0].config.clients
    return {
        trial.label if trial.yardstick is None else row_label(trial.yardstick.kind): dataclasses.replace(
            trial.config, clients=clients
        )
        for trial in study.trials
    }


def _entry(space: SearchSpace, network: MeasuredNetwork) -> CacheEntry | None:
    """Return the network as an entry of the space; None of a linear model.

    Raises:
        UserError: it is not in the space, or costs something else there.
    """
    if network.architecture is None:
        return None
    entry = _entry_of(space, network.architecture)
    if (entry.macs, entry.params) != (network.macs, network.params):
        raise UserError(
            f"a result has {_OTHERS} than {space.name}: (MACs, parameters) are {(entry.macs, entry.params)} there, and "
            f"the result says {(network.macs, network.params)}"
        )
    return entry


def _entry_of(space: SearchSpace, architecture: object) -> CacheEntry:
    try:
        return make_entry(space, architecture_from_json(architecture))
    except ArchitectureError as error:
        raise UserError(f"a result has {_OTHERS} than {space.name}: {error}") from error


def _with_classes(space: SearchSpace, networks: Sequence[MeasuredNetwork]) -> SearchSpace:
    """Return the space with as many classes as the networks have; each class takes equally many parameters."""
    known = next((network for network in networks if network.architecture is not None), None)
    if known is None:
        return space
    few, more = (_entry_of(space.adapted(classes=classes), known.architecture).params for classes in (2, 3))
    return space.adapted(classes=max(1, 2 + (known.params - few) // (more - few)))
