"""The study that the benchmark of a GPU trains: what it takes from the file, and what the file may not ask for."""

import dataclasses
from pathlib import Path

from fedpareto.search.comparison.studies.study import Study, Trial, read_study
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.rules.method_defaults import with_method_defaults
from fedpareto.training.config.rules.unused_settings import settings_of
from fedpareto.training.config.run import RunConfig

#: Settings of a run that the benchmark takes from the study; a name that ends in a dot is that of a whole group.
TAKEN = (
    *("space", "seed", "method", "partition.", "client."),
    *(f"{spec.name}." for spec in METHODS.everything() if spec.settings is not None and not spec.single_network),
    *("server.largest_weight", "server.weight_by_examples", "server.lr"),
    *(
        f"data.{name}"
        for name in ("validation", "crop", "flip", "cutout", "randaugment", "magnitude", "mixup", "cutmix")
    ),
    *(
        f"clients.{name}"
        for name in ("count", "per_round", "max_macs", "macs_distribution", "macs_exponent", "macs_cap")
    ),
    *("evaluation.probes", "evaluation.calibration_images", "evaluation.batch_size"),
)

#: Settings that are for ``compare-methods``: in their place the benchmark has its options, and what it measures.
REPLACED = (
    *("rounds", "device", "precision", "execution.", "evaluation.every", "checkpoint.", "tracking.", "output"),
    *("data.name", "data.root", "data.download"),
)


@dataclasses.dataclass(frozen=True)
class Contest:
    """Methods that are trained one after another.

    Attributes:
        name: of the study.
        budgets: MACs of the networks whose test accuracy is measured, ascending.
        trials: of every method, the reference first, complete but for what the benchmark decides itself.
    """

    name: str
    budgets: tuple[int, ...]
    trials: tuple[Trial, ...]

    @property
    def config(self) -> RunConfig:
        """The run of the reference; all that a study's methods share is in it."""
        return self.trials[0].config

    def with_batch(self, images: int) -> "Contest":
        """Return the contest with so many images a step."""
        return dataclasses.replace(self, trials=tuple(_with_batch(trial, images) for trial in self.trials))


def read_contest(path: Path) -> Contest:
    """Return what a study file lets the benchmark train.

    Raises:
        UserError: it is no study, has no reference or more than a seed, or asks for what the benchmark does not do.
    """
    study = read_study(path)
    _check(path, study)
    # The sort is stable: all others are in the order of the file.
    trials = sorted(study.methods, key=lambda trial: trial.label != study.reference)
    found = (dataclasses.replace(trial, config=with_method_defaults(trial.config)) for trial in trials)
    return Contest(study.name, tuple(study.budgets), tuple(found))


def _check(path: Path, study: Study) -> None:
    if study.reference is None:
        raise UserError(
            f"{path} gives run.compute; benchmarks/gpu.py trains as many rounds as there is time for: give reference, "
            "the method that is trained first, and run.rounds instead"
        )
    if len(study.seeds) > 1:
        raise UserError(f"{path}: seeds is {list(study.seeds)}; benchmarks/gpu.py has time for one, e.g. [0]")
    if study.kinds:
        raise UserError(f"{path}: yardsticks are not trained by benchmarks/gpu.py; leave them out")
    for trial in study.methods:
        defaults = settings_of(type(trial.config)())
        if trial.config.spec.single_network:
            raise UserError(
                f"{path}: methods.{trial.label} trains one network; benchmarks/gpu.py compares supernets: leave it out"
            )
        for name, value in settings_of(trial.config).items():
            if value != defaults[name] and not _among(TAKEN + REPLACED, name):
                raise UserError(f"{path}: {name} is {value}, which benchmarks/gpu.py would ignore; leave it out")


def _among(names: tuple[str, ...], name: str) -> bool:
    return any(name.startswith(known) if known.endswith(".") else name == known for known in names)


def _with_batch(trial: Trial, images: int) -> Trial:
    client = dataclasses.replace(trial.config.client, batch_size=images)
    return dataclasses.replace(trial, config=dataclasses.replace(trial.config, client=client))
