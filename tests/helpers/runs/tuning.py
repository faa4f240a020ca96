"""Ways to train, chosen by rates that a test gives, and the files they are kept in."""

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
from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.engines.simulation.tuning import Stopwatch, TunedProfile, choose_profile
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Task
from helpers.runs.federation import micro_recipe
from helpers.runs.simulation import micro_entries

CPU = torch.device("cpu")

#: The images a second of a profile, the n-th time that it is measured.
Rate = Callable[[Profile, int], float]


class Rates(Stopwatch):
    """Tells given rates instead of measured ones, and remembers what was measured."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
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
        return chosen(config, precision, stopwatch=self, **given)

    @property
    def compared(self) -> Counter[Profile]:
        return Counter(self.measured[2:])


def chosen(
    config: ExecutionConfig | None = None,
    precision: PrecisionChoice = "auto",
    recipe: LocalRecipe | None = None,
    entries: Sequence[CacheEntry] | None = None,
    stopwatch: Stopwatch | None = None,
) -> tuple[TunedProfile, list[str]]:
    """Choose a profile; also return the remarks."""
    remarks: list[str] = []
    choice = choose_profile(
        precision,
        config or ExecutionConfig(),
        recipe or micro_recipe(),
        entries or micro_entries(),
        CPU,
        ProgressListener(remark=remarks.append),
        stopwatch,
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
