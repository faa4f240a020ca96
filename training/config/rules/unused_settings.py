"""Settings that a run does not read: which, and what would read them. A new run refuses those that were given.

One table says of every setting when it is read. What stands in none of its groups is read by every run. Methods say of
their own settings when these are read.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.methods.spec import SOME_READ, MethodSpec, ReadWhen
from fedpareto.training.config.partition import NATURAL
from fedpareto.training.config.registries import DATA_SETS
from fedpareto.training.config.run import RunConfig, by_full_name, complete_mapping
from fedpareto.training.config.server import LARGEST_WEIGHT


class Condition(NamedTuple):
    """Condition under which a setting is read.

    Attributes:
        holds: whether a run reads it.
        words: the same, to go on after "is read only".
    """

    holds: Callable[[RunConfig], bool]
    words: str


def _by_scheme(scheme: str) -> Condition:
    return Condition(lambda config: config.partition.scheme == scheme, f"with partition.scheme {scheme}")


def _by_aggregation(rule: str) -> Condition:
    return Condition(lambda config: config.server.aggregation == rule, f"with server.aggregation {rule}")


def _has_data(config: RunConfig, *names: str) -> bool:
    """Condition: the data are one of these sets, or somebody else's, who may read the same settings."""
    return config.data.name in (*names, *DATA_SETS.others())


#: Data sets of pictures that are decoded, of those with columns or keys, and of arrays in files of a user.
_PICTURES = ("imagefolder", "clientfolders", "table", "huggingface", "webdataset")
_COLUMNS, _IN_ARRAYS = ("table", "huggingface", "webdataset"), ("leaf", "npz")

_BY_COLUMNS = Condition(
    lambda config: _has_data(config, *_COLUMNS), f"with data.name {', '.join(_COLUMNS[:-1])} and {_COLUMNS[-1]}"
)

_EQUAL = "clipped, median, trimmed or krum, which weigh all clients alike"
_WEIGHED = "server.weight_by_examples"

_FILES = Condition(
    lambda config: config.engine == "in-process" and _has_data(config, "imagefolder", "clientfolders", "table"),
    "with data.name imagefolder, clientfolders and table, and engine in-process",
)

_CONNECTED = Condition(lambda config: config.engine == "flower", "with engine flower")

#: When settings are read, by name; a name that ends in a dot is that of a whole group. The first that fits counts. What
#: only some methods read has a condition of theirs besides.
CONDITIONS: Mapping[str, Condition] = {
    "fitness": Condition(
        lambda config: config.cache is None, "where the cache is built; a cache that is given has its own"
    ),
    "data.root": Condition(
        lambda config: config.engine == "flower" or config.data.name != "digits",
        "by data sets that are files; data.name is digits, which come with a package",
    ),
    "data.download": Condition(
        lambda config: config.engine == "in-process" and _has_data(config, "cifar10", "cifar100", "huggingface"),
        "by data.name cifar10, cifar100 and huggingface with engine in-process",
    ),
    "data.fit": Condition(
        lambda config: config.engine == "flower" or _has_data(config, *_PICTURES),
        f"with data.name {', '.join(_PICTURES[:-1])} and {_PICTURES[-1]}",
    ),
    **{f"data.{column}_column": _BY_COLUMNS for column in ("image", "label", "client")},
    "data.skip_damaged": Condition(
        lambda config: _has_data(config, *_PICTURES), f"with data.name {', '.join(_PICTURES[:-1])} and {_PICTURES[-1]}"
    ),
    "data.allow_duplicates": Condition(
        lambda config: config.engine == "in-process" and _has_data(config, *_PICTURES, *_IN_ARRAYS),
        f"with engine in-process and data.name {', '.join(_PICTURES)}, {' and '.join(_IN_ARRAYS)}",
    ),
    "data.store": _FILES,
    "data.decoders": Condition(
        lambda config: _FILES.holds(config) and config.data.store in ("auto", "encoded"),
        "with data.store auto and encoded, of files that are decoded",
    ),
    "data.magnitude": Condition(lambda config: config.data.randaugment > 0, "with data.randaugment"),
    "partition.alpha": _by_scheme("dirichlet"),
    "partition.balanced": Condition(
        lambda config: config.partition.scheme == "dirichlet" and config.clients.data != "proportional",
        "with partition.scheme dirichlet, and not with clients.data proportional, which has amounts of its own",
    ),
    "partition.classes_per_client": _by_scheme("pathological"),
    "partition.shards_per_client": _by_scheme("shard"),
    "partition.min_images": _by_scheme(NATURAL),
    "clients.macs_exponent": Condition(
        lambda config: config.clients.macs_distribution in ("zipf", "zipf-ranks"),
        "with clients.macs_distribution zipf and zipf-ranks",
    ),
    "clients.gamma": Condition(lambda config: config.clients.data == "proportional", "with clients.data proportional"),
    "clients.macs_cap": Condition(
        lambda config: config.clients.file is None, "without clients.file, which has all limits"
    ),
    "client.effective_beta": Condition(
        lambda config: config.client.imbalance == "effective-number", "with client.imbalance effective-number"
    ),
    "server.largest_weight": Condition(
        lambda config: config.clients.per_round > 1 and config.server.weighs_clients,
        f"with more than one client a round, and not with server.aggregation {_EQUAL}",
    ),
    "server.weight_by_examples": Condition(
        lambda config: config.server.weighs_clients, f"where server.aggregation is none of {_EQUAL}"
    ),
    "server.max_share": Condition(
        # Who has no choice but to weigh by images does not read the other setting.
        lambda config: (
            config.server.weighs_clients
            and (config.server.weight_by_examples or _WEIGHED not in config.spec.also_reads)
        ),
        "where clients weigh by their images: with server.weight_by_examples, or a method that always does so, and not "
        f"with server.aggregation {_EQUAL}",
    ),
    "server.trim": _by_aggregation("trimmed"),
    "server.hostile": _by_aggregation("krum"),
    "server.outlier_factor": Condition(
        lambda config: config.privacy.clip == 0, "without privacy.clip, which bounds every update itself"
    ),
    "evaluation.metric": Condition(
        lambda config: config.engine == "in-process" and not config.privacy.noise,
        "with engine in-process and without privacy.noise, as only accuracy is told of clients' images and of private "
        "runs",
    ),
    "privacy.delta": Condition(lambda config: bool(config.privacy.noise), "with privacy.noise"),
    "privacy.statistics": Condition(lambda config: bool(config.privacy.noise), "with privacy.noise"),
    "flower.": _CONNECTED,
}

#: What configurations of runs have in place of settings that were left out, also where they are not read.
_FILLED_IN = {"server.largest_weight": LARGEST_WEIGHT}

#: What every run reads. Where files are and what is reported, too: a run that does without is the same run. Rounds give
#: way to compute, as the run says when it starts.
ALWAYS = (
    *("space", "output", "cache", "init", "rounds", "compute", "seed", "engine", "method", "device", "precision"),
    *(f"data.{name}" for name in ("name", "validation", "crop", "flip", "cutout", "randaugment", "mixup", "cutmix")),
    *("data.images", "partition.scheme"),
    *(f"clients.{name}" for name in ("count", "per_round", "max_macs", "max_memory", "macs_distribution")),
    *(f"clients.{name}" for name in ("max_latency", "latency_table", "file", "data", "sampler")),
    *(f"client.{name}" for name in ("epochs", "batch_size", "lr", "lr_schedule", "momentum", "weight_decay", "clip")),
    *(f"client.{name}" for name in ("label_smoothing", "logit_adjustment", "imbalance", "decay_all")),
    *("server.momentum", "server.lr", "server.aggregation"),
    *("privacy.clip", "privacy.noise", "privacy.epsilon"),
    *(f"evaluation.{name}" for name in ("every", "calibration_images", "batch_size")),
    *("checkpoint.", "tracking.", "execution."),
)


def conditions() -> Mapping[str, Condition]:
    """``CONDITIONS``, with those of the settings that only some methods read."""
    return _with_methods(tuple(METHODS.everything()))


@functools.lru_cache
def _with_methods(specs: tuple[MethodSpec, ...]) -> Mapping[str, Condition]:
    found = dict(CONDITIONS)
    for name in SOME_READ:
        found[name] = _by_methods([spec.name for spec in specs if name in spec.also_reads], CONDITIONS.get(name))
    found["evaluation.probes"] = _by_methods([spec.name for spec in specs if not spec.single_network], None)
    for spec in specs:
        for setting in spec.setting_names:
            found[f"{spec.name}.{setting}"] = _by_methods([spec.name], spec.read_when.get(setting))
    return found


def _by_methods(methods: list[str], besides: Condition | ReadWhen | None) -> Condition:
    names = methods[0] if len(methods) == 1 else f"{', '.join(methods[:-1])} and {methods[-1]}"
    if besides is None:
        return Condition(lambda config: config.method in methods, f"by method {names}")
    words = f"by {'method' if len(methods) == 1 else 'methods'} {names} {besides.words}"
    return Condition(lambda config: config.method in methods and besides.holds(config), words)


def condition_of(name: str) -> Condition | None:
    """Condition under which a setting is read; None for one that every run reads."""
    return next((condition for known, condition in conditions().items() if _names(known, name)), None)


def reads(config: RunConfig, name: str) -> bool:
    """Return True if a run reads a setting."""
    condition = condition_of(name)
    return condition is None or condition.holds(config)


def unread(config: RunConfig) -> dict[str, Any]:
    """Return the settings that were given, as they are not the default, and that the run does not read."""
    given, defaults = settings_of(config), settings_of(type(config)())
    found = {}
    for name, value in given.items():
        if value != defaults[name] and value != _FILLED_IN.get(name) and not reads(config, name):
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
    """Error message for a setting that was given and that the run does not read."""
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
    return by_full_name(complete_mapping(config))


def _with_defaults(config: RunConfig, names: Iterable[str]) -> RunConfig:
    """Return ``config`` with the defaults of some settings, a group at once: its settings must go together."""
    defaults, changes, groups = type(config)(), dict[str, Any](), dict[str, dict[str, Any]]()
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
