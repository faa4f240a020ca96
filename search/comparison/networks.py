"""Networks of the yardsticks that train one: the fittest network within each budget, found by the search."""

import dataclasses
from collections.abc import Mapping, Sequence

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CacheEntry
from fedpareto.search.comparison.studies.study import Trial
from fedpareto.search.query.searcher import search
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.sources import list_images, source
from fedpareto.training.setup import cache_of


def with_networks(trials: Sequence[Trial], listener: ProgressListener) -> list[Trial]:
    """Return the trials of a study, those that train one network with what the search finds within their budget.

    Raises:
        UserError: a budget has no network, or with some seed no client can run it.
    """
    budgets = {trial.yardstick.budget for trial in trials if trial.yardstick is not None} - {None}
    if not budgets:
        return list(trials)
    # What they share with each other says where the images and the cache are.
    config = next(trial.config for trial in trials if trial.yardstick is not None)
    space = space_of(config)
    found = find_networks(config, space, sorted(budget for budget in budgets if budget is not None), listener)
    return [_with_network(trial, space, found) for trial in trials]


def space_of(config: RunConfig) -> SearchSpace:
    """Return the search space of a run with the classes of its images.

    Raises:
        UserError: the space or the images are missing.
    """
    data = config.data
    classes = list_images(data.name, data.root, "train", download=data.download, reading=data.reading).classes
    return load_space(config.space).adapted(classes=len(classes))


def find_networks(
    config: RunConfig, space: SearchSpace, budgets: Sequence[int], listener: ProgressListener
) -> dict[int, CacheEntry]:
    """Return the fittest network within every budget, by the cache that runs of ``config`` are given or build.

    Raises:
        BudgetError: a budget has no network.
        UserError: the cache or the fitness cannot be read.
    """
    cache = cache_of(config, space, listener)
    return {
        budget: search(space, cache.fitness, Limits(macs=budget), cache.entries, listener=listener).entry
        for budget in budgets
    }


def _with_network(trial: Trial, space: SearchSpace, found: Mapping[int, CacheEntry]) -> Trial:
    if trial.yardstick is None or trial.yardstick.budget is None:
        return trial
    entry, config = found[trial.yardstick.budget], trial.config
    batch = config.client.batch_size or source(config.data.name).batch_size
    clients = capabilities(config.clients, space, trial.seed)
    if not any(client.runs(entry, batch) for client in set(clients)):
        raise UserError(
            f"with seed {trial.seed} no client can run the {format_quantity(entry.macs)} MACs of the network of "
            f"{trial.yardstick.label}; leave out that budget or the yardstick {trial.yardstick.kind}, or raise "
            "clients.max_macs"
        )
    return dataclasses.replace(trial, network=entry.architecture)
