"""Registries of client samplers, data sets, trackers and aggregators, which are chosen by name.

Here are the names alone, so that a configuration is checked without torch; what they stand for is imported when it is
used. How to add one is said where its kind is defined: ``training/methods/sampling.py``, ``training/data/sources.py``,
``training/trackers/protocol.py`` and ``training/aggregation/protocol.py``.
"""

from typing import Any

from fedpareto.supernet.common.extensions import not_taking, short
from fedpareto.supernet.common.registry import Registry
from fedpareto.training.config.run import RunConfig


def _no_source(thing: Any) -> str | None:
    """Fault of what is to be a data source. It is known by what it has: its type imports torch."""
    for name, fault in (
        ("listing", not_taking("root", "split", "download", "listener")),
        ("augmentation", not_taking("side")),
        ("validation", not_taking("root")),
    ):
        if not hasattr(thing, name):
            return f"it is {short(thing)}; it must be a Source, with {name}"
        wrong = fault(getattr(thing, name))
        if wrong is not None:
            return f"{name}: {wrong}"
    batch = getattr(thing, "batch_size", None)
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        return f"batch_size is {short(batch)}; it must be a whole number of at least 1"
    return None


SAMPLERS: Registry[Any] = Registry(
    "client sampler",
    "fedpareto.samplers",
    {"uniform": "fedpareto.training.methods.sampling:uniform"},
    fault=not_taking("available", "per_round", "generator", "state"),
)

DATA_SETS: Registry[Any] = Registry(
    "data set",
    "fedpareto.data",
    {
        name: f"fedpareto.training.data.sources:{name.upper()}"
        for name in (
            *("digits", "cifar10", "cifar100", "imagefolder", "arrays", "clientfolders", "table", "leaf"),
            *("huggingface", "webdataset", "npz"),
        )
    },
    fault=_no_source,
)

TRACKERS: Registry[Any] = Registry("tracker", "fedpareto.trackers", fault=not_taking("context"))

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
    fault=not_taking("space", "tensors"),
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
