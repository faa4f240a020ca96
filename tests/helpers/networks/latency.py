"""Latency tables of no device in particular."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from fedpareto.cache.costs.latency.block_names import block_names, distinct_names
from fedpareto.cache.costs.latency.table import Conditions
from fedpareto.search.runtimes.runtime import Measurable
from fedpareto.supernet.space import SearchSpace


def names_of(space: SearchSpace) -> list[str]:
    """Return the name of every block of a space, stems and heads included, each once."""
    return distinct_names(block_names(space))


def random_times(space: SearchSpace, seed: int = 0) -> dict[str, float]:
    """Return a time for every block of a space that has little to do with its MACs."""
    names = names_of(space)
    return dict(zip(names, np.random.default_rng(seed).uniform(0.1, 1.0, len(names)).tolist(), strict=True))


def write_table(path: Path, times: object) -> Path:
    path.write_text(json.dumps({"format": "fedpareto-latency-table", "version": 1, "blocks": times}))
    return path


class FakeClock:
    """Time that passes only where something says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def wait(self, milliseconds: float) -> None:
        self.now += round(milliseconds * 1e6)


#: Milliseconds of a call of ``FakeRuntime`` beside those of its weights, of which a thousand take one.
CALL_MS = 0.5


class FakeRuntime:
    """A device on which every weight takes its time, and every call; it becomes slower by ``drift`` with each group."""

    def __init__(self, clock: FakeClock, drift: float = 1.0) -> None:
        self.clock, self.drift, self.speed = clock, drift, 1.0
        self.groups: list[int] = []

    def calls(self, group: Sequence[Measurable]) -> list[Callable[[], object]]:
        """Return a call for each module."""
        self.groups.append(len(group))
        self.speed *= self.drift
        return [functools.partial(self._run, network_ms(member.module)) for member in group]

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}

    def _run(self, milliseconds: float) -> None:
        self.clock.wait(milliseconds * self.speed)


def network_ms(module: nn.Module) -> float:
    """Return what a call of a module takes in ``FakeRuntime``."""
    weights = [layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return CALL_MS + sum(weights) / 1000


def conditions(**changes: object) -> Conditions:
    """Conditions of no machine in particular."""
    usual = Conditions(
        space="small",
        machine="a machine",
        device="cpu",
        runtime="torch",
        threads=1,
        batch=1,
        clock="wall",
        versions={"torch": "2.9"},
        interval=0.02,
        confidence=0.95,
        created="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]
