"""Settings of what is measured and kept in the course of a run: probes and checkpoints."""

import dataclasses
from typing import Literal

from fedpareto.training.config.bounds import bounded, check_bounds

Metric = Literal["accuracy", "balanced", "macro-f1"]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation of probe networks on validation images.

    Attributes:
        every: rounds between evaluations; the last round is always evaluated.
        probes: networks evaluated, from the cache's smallest to its largest.
        calibration_images: training images that set BatchNorm's statistics of a probe.
        batch_size: images a batch of evaluation and calibration.
        metric: by which the best checkpoint and the best probe are chosen: accuracy; balanced (the mean recall of the
            classes) or macro-f1 (their mean F1), which count rare classes as much as frequent ones.
    """

    every: int = bounded(10, least=1)
    probes: int = bounded(5, least=2)
    calibration_images: int = bounded(1024, least=2)
    batch_size: int = bounded(128, least=2)
    metric: Metric = "accuracy"

    def __post_init__(self) -> None:
        check_bounds(self, "evaluation")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints.

    Attributes:
        every: rounds between checkpoints; the last round and an interrupted one always have one.
        keep: newest checkpoints kept; the best by validation is kept too.
    """

    every: int = bounded(1, least=1)
    keep: int = bounded(2, least=1)

    def __post_init__(self) -> None:
        check_bounds(self, "checkpoint")
