"""Settings that a run does not read: which, and what would read them. A new run refuses those that were given.

One table says of every setting when it is read. What stands in none of its groups is read by every run.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, get_args

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.methods import MethodName
from fedpareto.training.config.run import SINGLE_METHODS, RunConfig, by_full_name, config_to_mapping


class Condition(NamedTuple):
    """When a setting is read.

    Attributes:
        holds: whether a run reads it.
        words: the same, to go on after "is read only".
    """

    holds: Callable[[RunConfig], bool]
    words: str


def _by_method(*methods: str) -> Condition:
    names = methods[0] if len(methods) == 1 else f"{', '.join(methods[:-1])} and {methods[-1]}"
    return Condition(lambda config: config.method in methods, f"by method {names}")


def _by_scheme(scheme: str) -> Condition:
    return Condition(lambda config: config.partition.scheme == scheme, f"with partition.scheme {scheme}")


def _mixes(config: RunConfig) -> bool:
    return config.method == "cotrain" and config.cotrain.networks in ("all", "extremes")


_DRAWING = Condition(
    lambda config: config.method == "deepfednas" and config.clients.per_round != 2,
    "by method deepfednas with more or less than 2 clients a round, as one of 2 has the largest network and one the "
    "smallest",
)
_WEIGHING = Condition(
    lambda config: config.method in ("deepfednas", "superfednas") and config.clients.per_round > 1,
    "by methods deepfednas and superfednas with more than one client a round",
)
_CO_TRAINING = Condition(_mixes, "by method cotrain with cotrain.networks all or extremes")
_DISTILLING = Condition(
    lambda config: _mixes(config) and config.cotrain.distillation > 0,
    "by method cotrain with cotrain.networks all or extremes and a positive cotrain.distillation",
)
_CONNECTED = Condition(lambda config: config.engine == "flower", "with engine flower")

#: When settings are read, by name; a name that ends in a dot is that of a whole group. The first that fits counts.
CONDITIONS: Mapping[str, Condition] = {
    "fitness": Condition(
        lambda config: config.cache is None, "where the cache is built; a cache that is given has its own"
    ),
    "data.root": Condition(
        lambda config: config.engine == "flower" or config.data.name != "digits",
        "by data sets that are files; data.name is digits, which come with a package",
    ),
    "data.download": Condition(
        lambda config: config.engine == "in-process" and config.data.name in ("cifar10", "cifar100"),
        "by data.name cifar10 and cifar100 with engine in-process",
    ),
    "data.fit": Condition(
        lambda config: config.engine == "flower" or config.data.name == "imagefolder", "with data.name imagefolder"
    ),
    "data.magnitude": Condition(lambda config: config.data.randaugment > 0, "with data.randaugment"),
    "partition.alpha": _by_scheme("dirichlet"),
    "partition.balanced": Condition(
        lambda config: config.partition.scheme == "dirichlet" and config.clients.data != "proportional",
        "with partition.scheme dirichlet, and not with clients.data proportional, which has amounts of its own",
    ),
    "partition.classes_per_client": _by_scheme("pathological"),
    "partition.shards_per_client": _by_scheme("shard"),
    "clients.macs_exponent": Condition(
        lambda config: config.clients.macs_distribution in ("zipf", "zipf-ranks"),
        "with clients.macs_distribution zipf and zipf-ranks",
    ),
    "clients.gamma": Condition(lambda config: config.clients.data == "proportional", "with clients.data proportional"),
    "clients.macs_cap": Condition(
        lambda config: config.clients.file is None, "without clients.file, which has all limits"
    ),
    "server.largest_weight": _WEIGHING,
    "server.weight_by_examples": _by_method("fedpareto", "deepfednas", "superfednas"),
    "fedpareto.nested_start": Condition(
        lambda config: config.method == "fedpareto" and config.init is None,
        "by method fedpareto without init, which is another beginning",
    ),
    "fedpareto.power_first": _by_method("fedpareto"),
    "fedpareto.power_last": _by_method("fedpareto"),
    "deepfednas.": _DRAWING,
    "fedavg.": _by_method("fedavg"),
    "cotrain.networks": _by_method("cotrain"),
    "cotrain.temperature": _DISTILLING,
    "cotrain.distillation": _CO_TRAINING,
    "dfnas.": _by_method("dfnas"),
    "decnas.": _by_method("decnas"),
    "privacy.delta": Condition(lambda config: config.privacy.noise > 0, "with privacy.noise"),
    "evaluation.probes": _by_method(*(method for method in get_args(MethodName) if method not in SINGLE_METHODS)),
    "flower.": _CONNECTED,
}

#: What every run reads. Where files are and what is reported, too: a run that does without is the same run. Rounds give
#: way to compute, as the run says when it starts.
ALWAYS = (
    *("space", "output", "cache", "init", "rounds", "compute", "seed", "engine", "method", "device", "precision"),
    *(f"data.{name}" for name in ("name", "validation", "crop", "flip", "cutout", "randaugment", "mixup", "cutmix")),
    *("data.images", "partition.scheme"),
    *(f"clients.{name}" for name in ("count", "per_round", "max_macs", "max_memory", "macs_distribution")),
    *(f"clients.{name}" for name in ("max_latency", "latency_table", "file", "data")),
    *("client.", "server.momentum", "server.lr", "privacy.clip", "privacy.noise"),
    *(f"evaluation.{name}" for name in ("every", "calibration_images", "batch_size")),
    *("checkpoint.", "tracking.", "execution."),
)


def condition_of(name: str) -> Condition | None:
    """Return when a setting is read, None of one that every run reads."""
    return next((condition for known, condition in CONDITIONS.items() if _names(known, name)), None)


def reads(config: RunConfig, name: str) -> bool:
    """Return whether a run reads a setting."""
    condition = condition_of(name)
    return condition is None or condition.holds(config)


def unread(config: RunConfig) -> dict[str, Any]:
    """Return the settings that were given, as they are not the default, and that the run does not read."""
    given, defaults = settings_of(config), settings_of(RunConfig())
    found = {}
    for name, value in given.items():
        if value != defaults[name] and not reads(config, name):
            found[name] = value
    return found


def refuse_unread(config: RunConfig) -> None:
    """Refuse settings that were given and are not read.

    Raises:
        UserError: there is one; it says what would read it.
    """
    for name, value in unread(config).items():
        raise UserError(f"{unread_words(name, value, config)}; leave it out")


def unread_words(name: str, value: Any, config: RunConfig) -> str:
    """Return what is wrong with a setting that a run does not read."""
    condition = condition_of(name)
    words = "" if condition is None else f" (it is read only {condition.words})"
    return f"{name} is {value}, which method {config.method} would ignore here{words}"


def read_only(config: RunConfig) -> RunConfig:
    """Return ``config`` with the default in place of whatever the run does not read."""
    while found := unread(config):
        # What is left out may have been what another setting is read with.
        config = _with_defaults(config, found)
    return config


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return every setting by its full name."""
    return by_full_name(config_to_mapping(config))


def _with_defaults(config: RunConfig, names: Iterable[str]) -> RunConfig:
    """Return ``config`` with the defaults of some settings, a group at once: its settings must go together."""
    defaults, changes, groups = RunConfig(), dict[str, Any](), dict[str, dict[str, Any]]()
    for name in names:
        group, _, field = name.rpartition(".")
        if group:
            groups.setdefault(group, {})[field] = getattr(getattr(defaults, group), field)
        else:
            changes[field] = getattr(defaults, field)
    changes |= {group: dataclasses.replace(getattr(config, group), **fields) for group, fields in groups.items()}
    return dataclasses.replace(config, **changes)


def _names(known: str, name: str) -> bool:
    return name.startswith(known) if known.endswith(".") else name == known
