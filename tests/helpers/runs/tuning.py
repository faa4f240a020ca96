"""Ways to train, chosen by rates and on machines that a test gives, and the files they are kept in."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.execution import ExecutionConfig, Precision, PrecisionChoice
from fedpareto.training.engines.simulation.bench import WALL_TIME, Stopwatch
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.engines.simulation.tuning import TunedProfile, choose_profile
from fedpareto.training.execution.machine import THIS_MACHINE, Machine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task
from helpers.runs.federation import micro_recipe
from helpers.runs.simulation import micro_entries

CPU = torch.device("cpu")

#: The images a second of a profile, the n-th time that it is measured.
Rate = Callable[[Profile, int], float]


@dataclasses.dataclass
class GivenMachine(Machine):
    """A machine that says of itself what a test gives.

    Attributes:
        count: its threads.
        possible: the precisions of its devices.
        lacking: why it has no kernels.
        compiling: whether it has to compile them.
        forgetting: why it keeps none.
    """

    count: int = 1
    possible: Sequence[Precision] = ("fp32", "bf16")
    lacking: str | None = None
    compiling: bool = False
    forgetting: str | None = None

    def threads(self) -> int:
        return self.count

    def precisions(self, device: torch.device) -> list[Precision]:
        return list(self.possible)

    def without_kernels(self) -> str | None:
        return self.lacking

    def compiles_kernels(self) -> bool:
        return self.compiling

    def forgets_kernels(self) -> str | None:
        return self.forgetting


class Rates(Stopwatch):
    """Tells given rates instead of measured ones, and remembers what was measured on its machine."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.machine = GivenMachine()
        self.measured: list[Profile] = []
        self.time, self.step = 0.0, 0.0

    def now(self) -> float:
        self.time += self.step
        return self.time

    def seconds(self, engine: InProcessEngine, tasks: Sequence[Task]) -> float:
        profile = engine._profile
        assert len(tasks) == profile.workers
        self.measured.append(profile)
        # The first two measure the step itself, to size the batch.
        rate = self.rate(profile, self.measured[2:].count(profile))
        return len(tasks) * engine._recipe.config.batch / rate

    def choose(
        self, config: ExecutionConfig | None = None, precision: PrecisionChoice = "auto", **given: Any
    ) -> tuple[TunedProfile, list[str]]:
        """Choose a profile by this clock; also return the remarks."""
        return chosen(config, precision, stopwatch=self, machine=self.machine, **given)

    @property
    def compared(self) -> Counter[Profile]:
        return Counter(self.measured[2:])


def chosen(
    config: ExecutionConfig | None = None,
    precision: PrecisionChoice = "auto",
    recipe: LocalRecipe | None = None,
    entries: Sequence[CacheEntry] | None = None,
    stopwatch: Stopwatch = WALL_TIME,
    machine: Machine = THIS_MACHINE,
) -> tuple[TunedProfile, list[str]]:
    """Choose a profile among torch's kernels, as numba's take a while to compile; also return the remarks."""
    remarks: list[str] = []
    choice = choose_profile(
        precision,
        dataclasses.replace(config or ExecutionConfig(), kernels="torch"),
        recipe or micro_recipe(),
        entries or micro_entries(),
        CPU,
        ProgressListener(remark=remarks.append),
        stopwatch,
        machine,
    )
    return choice, remarks


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def body_of(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text())
    return body


def with_macs(*macs: int) -> list[CacheEntry]:
    return [dataclasses.replace(micro_entries()[0], macs=number) for number in macs]
