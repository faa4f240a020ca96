"""FedPareto: federated training of once-for-all supernets, and search of the subnet that fits a device.

>>> import fedpareto as fp
>>> space = fp.load_space("mobilenet-tiny", classes=10)
>>> cache = fp.build_cache(space, entries=30, progress=False)
>>> federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1}
>>> result = fp.train(space, data="digits", cache=cache, rounds=2, **federation, output="runs/first", progress=False)
>>> run = fp.open_run(result.folder)
>>> answer = run.find(macs="2M", progress=False)
>>> subnet = run.extract(answer, progress=False)
>>> subnet.save("subnet")
PosixPath('subnet')

Names are imported when they are first used: ``import fedpareto`` costs no torch. The packages ``supernet``,
``fitness``, ``cache``, ``training`` and ``search`` lie beside this folder in a checkout, and are links in it, so that a
checkout runs, and is typed, as it is.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpareto.cache.api import build_cache, frontier, load_cache
    from fedpareto.cache.cache_file import Cache
    from fedpareto.cache.entries import CacheEntry
    from fedpareto.fitness.api import ArchitectureScore, score
    from fedpareto.search.api import find_subnet, open_run
    from fedpareto.search.comparison.compare import compare
    from fedpareto.search.profiling.device_profile import profile_device
    from fedpareto.search.query.answering import SearchOutcome
    from fedpareto.search.ranking.validate import validate_fitness
    from fedpareto.search.subnet import load_subnet
    from fedpareto.search.trained_run import Subnet, TrainedRun
    from fedpareto.supernet.architecture import Architecture
    from fedpareto.supernet.common.errors import UserError
    from fedpareto.supernet.fitness_settings import FitnessSettings
    from fedpareto.supernet.networks.network import build_network
    from fedpareto.supernet.space import SearchSpace
    from fedpareto.supernet.space_file import load_space
    from fedpareto.training.aggregation.protocol import register_aggregator
    from fedpareto.training.api import train
    from fedpareto.training.config.methods.registry import register_method
    from fedpareto.training.data.image_data import ImageData
    from fedpareto.training.data.sources import register_data_source
    from fedpareto.training.methods.sampling import register_sampler
    from fedpareto.training.trackers.protocol import register_tracker
    from fedpareto.training.training_result import TrainingResult

#: Where every public name is defined, below this package.
_MODULES = {
    "Architecture": "supernet.architecture",
    "ArchitectureScore": "fitness.api",
    "Cache": "cache.cache_file",
    "CacheEntry": "cache.entries",
    "FitnessSettings": "supernet.fitness_settings",
    "ImageData": "training.data.image_data",
    "SearchOutcome": "search.query.answering",
    "SearchSpace": "supernet.space",
    "Subnet": "search.trained_run",
    "TrainedRun": "search.trained_run",
    "TrainingResult": "training.training_result",
    "UserError": "supernet.common.errors",
    "build_cache": "cache.api",
    "build_network": "supernet.networks.network",
    "compare": "search.comparison.compare",
    "find_subnet": "search.api",
    "frontier": "cache.api",
    "load_cache": "cache.api",
    "load_space": "supernet.space_file",
    "load_subnet": "search.subnet",
    "open_run": "search.api",
    "profile_device": "search.profiling.device_profile",
    "register_aggregator": "training.aggregation.protocol",
    "register_data_source": "training.data.sources",
    "register_method": "training.config.methods.registry",
    "register_sampler": "training.methods.sampling",
    "register_tracker": "training.trackers.protocol",
    "score": "fitness.api",
    "train": "training.api",
    "validate_fitness": "search.ranking.validate",
}

__all__ = [
    "Architecture",
    "ArchitectureScore",
    "Cache",
    "CacheEntry",
    "FitnessSettings",
    "ImageData",
    "SearchOutcome",
    "SearchSpace",
    "Subnet",
    "TrainedRun",
    "TrainingResult",
    "UserError",
    "build_cache",
    "build_network",
    "compare",
    "find_subnet",
    "frontier",
    "load_cache",
    "load_space",
    "load_subnet",
    "open_run",
    "profile_device",
    "register_aggregator",
    "register_data_source",
    "register_method",
    "register_sampler",
    "register_tracker",
    "score",
    "train",
    "validate_fitness",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for.

    Raises:
        AttributeError: there is no such name.
    """
    if name == "__version__":
        return metadata.version(__name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    # The next time it is found without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
