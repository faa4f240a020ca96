"""What an engine does: turn tasks into updates or failures, and calibration tasks into statistics."""

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
    """A federation that cannot go on; the run keeps its last round."""


def never() -> bool:
    """Return that nobody has asked to stop."""
    return False


class Stopped(KeyboardInterrupt):
    """The user has asked to stop while clients were waited for, trained or evaluated."""


class Engine(Protocol):
    """Runs tasks on clients, wherever those are.

    Tasks are taken from the iterable only as they can be started, and answers are yielded as they come, so
    that memory does not grow with the number of clients.
    """

    def available(self) -> Sequence[int]:
        """Return the clients a round can draw from, in ascending order; may wait for them.

        Raises:
            EngineError: there are too few.
            Stopped: the user does not want to wait any more.
        """

    def examples(self, client: int) -> int:
        """Return how many training images a client has that is available."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in any order; its tensors hold until the next one is asked for."""


class CalibratingEngine(Engine, Protocol):
    """An engine whose clients also calibrate subnets."""

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield one answer for every task, in any order."""


class Federation(Protocol):
    """The clients of a run with their images, simulated or connected."""

    @property
    def split(self) -> Split | Census:
        """What is written of them into the run's folder."""

    def labels(self) -> IntArray | None:
        """Return how many images of each class every client has, (clients, classes); None if only they know."""

    def engine(
        self, config: RunConfig, space: SearchSpace, profile: Profile, should_stop: Callable[[], bool] = never
    ) -> CalibratingEngine:
        """Return what trains them; where it waits for clients it asks whether it ``should_stop``."""

    def evaluator(self, config: RunConfig, space: SearchSpace) -> ProbeEvaluator:
        """Return what measures probes on validation images."""

    def on_device(self, device: torch.device) -> "Federation":
        """Return the same with what this process holds of its images on ``device``."""
