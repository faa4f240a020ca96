"""Protocols of engines and federations: a federation holds the clients, and its engine has them train tasks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.split import Census, Split
from fedpareto.training.evaluation.evaluator import ProbeEvaluator
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import CalibrationTask, Failure, Statistics, Task, Update


class EngineError(UserError):
    """Error of a federation that cannot go on; the run keeps its last round."""


def never() -> bool:
    """Return False, for a run that nobody can ask to stop."""
    return False


class Stopped(KeyboardInterrupt):
    """Interruption by the user while clients were waited for, trained or evaluated."""


class Engine(Protocol):
    """Engine: runs tasks on clients, wherever those are.

    Tasks are taken from the iterable only as they can be started, and answers are yielded as they come, so
    that memory does not grow with the number of clients.
    """

    def available(self) -> Sequence[int]:
        """Return the clients that a round can draw from, in ascending order; may wait for them.

        Raises:
            EngineError: there are too few clients.
            Stopped: the user does not want to wait any more.
        """

    def examples(self, client: int) -> int:
        """Return the number of training images of an available client."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in any order; its tensors hold until the next one is asked for."""


class CalibratingEngine(Engine, Protocol):
    """Engine whose clients also calibrate subnets."""

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield one answer for every task, in their order."""


class Federation(Protocol):
    """Federation: the clients of a run with their images, simulated or connected."""

    @property
    def split(self) -> Split | Census:
        """Record of the clients' images for the run's folder."""

    def labels(self) -> IntArray | None:
        """Return every client's number of images of each class, (clients, classes); None if only the clients know."""

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> CalibratingEngine:
        """Return the engine that trains the clients; while it waits for clients it asks ``should_stop``."""

    def evaluator(self, config: RunConfig, space: SearchSpace) -> ProbeEvaluator:
        """Return the evaluator that measures probes on validation images."""

    def on_device(self, device: torch.device) -> "Federation":
        """Return the federation with its images on ``device``, as far as this process holds them."""
