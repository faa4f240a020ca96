"""Registries of client samplers, data sets, trackers and aggregators, which are chosen by name.

Here are the names alone, so that a configuration is checked without torch; what they stand for is imported when it is
used. How to add one is said where its kind is defined: ``training/methods/sampling.py``, ``training/data/sources.py``,
``training/trackers/protocol.py`` and ``training/aggregation/protocol.py``.
"""

from typing import Any

from fedpareto.supernet.common.registry import Registry
from fedpareto.training.config.run import RunConfig

SAMPLERS: Registry[Any] = Registry(
    "client sampler", "fedpareto.samplers", {"uniform": "fedpareto.training.methods.sampling:uniform"}
)

DATA_SETS: Registry[Any] = Registry(
    "data set",
    "fedpareto.data",
    {
        name: f"fedpareto.training.data.sources:{name.upper()}"
        for name in ("digits", "cifar10", "cifar100", "imagefolder", "arrays")
    },
)

TRACKERS: Registry[Any] = Registry("tracker", "fedpareto.trackers")

AGGREGATORS: Registry[Any] = Registry(
    "aggregator",
    "fedpareto.aggregators",
    {
        "mean": "fedpareto.training.aggregation.weighted_average:WeightedAverage",
        "clipped": "fedpareto.training.aggregation.clipped:Clipped",
        "median": "fedpareto.training.aggregation.median:Median",
        "trimmed": "fedpareto.training.aggregation.trimmed:Trimmed",
        "krum": "fedpareto.training.aggregation.krum:Krum",
    },
)


def check_names(config: RunConfig) -> None:
    """Refuse names that a run could do nothing with, before anything slow begins.

    Raises:
        UserError: there is no client sampler, data set, aggregator or tracker of a name.
    """
    SAMPLERS.check(config.clients.sampler)
    if ":" not in config.data.name:
        # Else it is a function of the user.
        DATA_SETS.check(config.data.name)
    AGGREGATORS.check(config.server.aggregation)
    for name in config.tracking.also:
        TRACKERS.check(name)
