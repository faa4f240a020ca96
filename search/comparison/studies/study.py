"""A study: the methods to compare, the settings they share, and the seeds and budgets of the comparison."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.comparison.studies.fields import (
    budgets_of,
    mapping_of,
    merged,
    quiet_config,
    refuse_given_otherwise,
    seeds_of,
)
from fedpareto.search.comparison.studies.settings import check_distinct, check_read
from fedpareto.search.comparison.studies.yardsticks import (
    ONE_NETWORK,
    Yardstick,
    YardstickKind,
    check_labels,
    read_kinds,
    with_compute,
    yardstick_config,
    yardsticks_of,
)
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError, nearest_name
from fedpareto.supernet.common.formats.typed_values import typed
from fedpareto.supernet.common.formats.typed_yaml import named, read_yaml_mapping
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.registries import check_names
from fedpareto.training.config.rules.unused_settings import read_only
from fedpareto.training.config.run import RunConfig

#: Settings that all methods of a study share.
SHARED = ("space", "seed", "compute", "engine", "data", "partition", "clients", "output", "rounds")

_FIELDS = ("name", "methods", "seeds", "budgets", "run")

#: Settings of runs that a study gives otherwise, and how.
_NOT_IN_RUN = {
    "method": "the methods are listed in the field methods",
    "seed": "seeds are listed in the field seeds",
    "output": "runs lie in --output",
}

#: Optional fields of a study.
_OPTIONAL = ("reference", "yardsticks")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One method, or one yardstick, with one seed.

    Attributes:
        label: the method's name in the study.
        seed: seed of the run.
        config: configuration of the run, without its output.
        yardstick: the baseline that it measures; None for a method.
        network: the network that a yardstick trains; None until it is found.
    """

    label: str
    seed: int
    config: RunConfig
    yardstick: Yardstick | None = None
    network: Architecture | None = None

    @property
    def name(self) -> str:
        """Name of its files."""
        return trial_name(self.label, self.seed)


def trial_name(label: str, seed: int) -> str:
    """Return the name of the files of a method's run with a seed."""
    return f"{label}-seed{seed}"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study, read from its file.

    Attributes:
        name: name of the study.
        labels: names of the methods, in the order of the file.
        seeds: seeds of the runs of each method.
        budgets: MACs at which accuracy is compared, ascending.
        trials: every method with every seed, seed by seed; then every yardstick likewise.
        reference: method that trains a number of rounds; all others compute as much as it did with their seed. None
            where the compute of all is given.
        kinds: kinds of the yardsticks.
    """

    name: str
    labels: Sequence[str]
    seeds: Sequence[int]
    budgets: Sequence[int]
    trials: Sequence[Trial]
    reference: str | None = None
    kinds: Sequence[YardstickKind] = ()

    @property
    def methods(self) -> Sequence[Trial]:
        """The trials of methods."""
        return [trial for trial in self.trials if trial.yardstick is None]

    def with_compute(self, trial: Trial, compute: str) -> Trial:
        """Return a trial with its part of the client MACs that every method has."""
        config = with_compute(trial.config, trial.yardstick, len(self.budgets), compute)
        return dataclasses.replace(trial, config=read_only(config))


def read_study(path: Path, data_root: str | None = None) -> Study:
    """Read a study file; ``data_root`` replaces the folder of its images.

    Raises:
        UserError: a field is unknown, missing or of another type, a method has what all must share or what it does
            not read, two methods compute the same, or the compute of a run is not limited.
    """
    mapping = read_yaml_mapping(path)
    for name in mapping:
        if name not in _FIELDS + _OPTIONAL:
            raise UserError(f"{path}: there is no field {name!r}; a study has: {', '.join(_FIELDS + _OPTIONAL)}")
    for name in _FIELDS:
        if name not in mapping:
            raise UserError(f"{path} lacks the field {name!r}; a study has: {', '.join(_FIELDS)}")
    methods, seeds = mapping["methods"], seeds_of(mapping["seeds"], f"{path}: seeds")
    if not isinstance(methods, dict) or not methods:
        raise UserError(
            f"{path}: methods must be a mapping of names to their own settings, e.g. {RunConfig.method}: {{}}"
        )
    base = dict(mapping_of(mapping["run"], f"{path}: run"))
    refuse_given_otherwise(base, _NOT_IN_RUN, f"{path}: run")
    reference = typed(mapping.get("reference"), str | None, f"{path}: reference")
    if reference is not None and reference not in methods:
        raise UserError(f"{path}: reference is {reference!r}; it must be one of the methods: {', '.join(methods)}")
    if (base.get("compute") is None) == (reference is None):
        raise UserError(
            f"{path}: methods are compared at the same client MACs; give either run.compute, e.g. 2T, or reference, "
            "the method whose run.rounds decide how much the others compute"
        )
    if data_root is not None:
        base["data"] = {**mapping_of(base.get("data", {}), f"{path}: run.data"), "root": data_root}
    budgets = budgets_of(mapping["budgets"], f"{path}: budgets")
    kinds = read_kinds(mapping.get("yardsticks"), f"{path}: yardsticks")
    if len(budgets) == 1 and {"alone", "share"} <= set(kinds):
        raise UserError(f"{path}: yardsticks alone and share are the same where there is one budget; name one of them")
    # By itself first: a wrong setting of all methods is none of the first one's.
    quiet_config(base, f"{path}: run")
    settings = {label: _own(path, label, own) for label, own in methods.items()}
    configs = {
        label: quiet_config({**merged(base, own), "seed": 0}, f"{path}: methods.{label}")
        for label, own in settings.items()
    }
    for label, config in configs.items():
        with named(f"{path}: methods.{label}"):
            check_names(config)
    check_read(path, configs, settings)
    check_distinct(path, configs)
    yardsticks = yardsticks_of(kinds, budgets)
    check_labels(list(settings), yardsticks, str(path))
    return Study(
        name=typed(mapping["name"], str, f"{path}: name"),
        labels=list(settings),
        seeds=seeds,
        budgets=budgets,
        trials=[
            *(
                Trial(label, seed, read_only(dataclasses.replace(config, seed=seed)))
                for seed in seeds
                for label, config in configs.items()
            ),
            *_yardstick_trials(path, base, yardsticks, seeds, len(budgets)),
        ],
        reference=reference,
        kinds=kinds,
    )


def _yardstick_trials(
    path: Path, base: Mapping[str, Any], yardsticks: Sequence[Yardstick], seeds: Iterable[int], shares: int
) -> Iterator[Trial]:
    """Yield the trials of the yardsticks, which have the common settings only."""
    where = f"{path}: yardsticks"
    for seed in seeds:
        for yardstick in yardsticks:
            config = quiet_config({**base, "method": ONE_NETWORK.name, ONE_NETWORK.name: {}, "seed": seed}, where)
            with named(f"{where}: {yardstick.kind}"):
                yield Trial(yardstick.label, seed, yardstick_config(config, yardstick, shares), yardstick)


def _own(path: Path, label: str, own: object) -> dict[str, Any]:
    """Return a method's own settings; its name is its label unless it says another."""
    where = f"{path}: methods.{label}"
    if not label.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"{where}: names of methods are letters, digits, - and _")
    settings = dict(mapping_of({} if own is None else own, where))
    for name in settings:
        if name in SHARED:
            raise UserError(f"{where}.{name}: all methods of a study share {', '.join(SHARED)}; move it to run")
    known = METHODS.names()
    if "method" not in settings and label not in known:
        nearest = nearest_name(label, known)
        meant = f"did you mean {nearest}? Else " if nearest else ""
        raise UserError(f"{where}: {meant}say which method it is, e.g. method: {known[0]}; valid: {', '.join(known)}")
    return {"method": label, **settings}
