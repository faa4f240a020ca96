"""Timing of calls: in turns, so that no drift lands on one of them, until their medians are known well enough."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import quantile_test

#: Level of every interval.
CONFIDENCE = 0.95

#: Runs of each call between two looks at the intervals.
_STRIDE = 20


class Effort(NamedTuple):
    """How well medians have to be known.

    Attributes:
        interval: half the width of the confidence interval of a median, relative to it, that is enough.
        most: most runs of a call.
        warm_up: runs of each call that do not count.
    """

    interval: float = 0.02
    most: int = 500
    warm_up: int = 5


class Timing(NamedTuple):
    """The median of a call's times in milliseconds, with its 95 % confidence interval and the number of runs."""

    ms: float
    low: float
    high: float
    runs: int

    @property
    def interval(self) -> float:
        """Half the width of the interval, relative to the median."""
        return (self.high - self.low) / 2 / self.ms


def measure(calls: Sequence[Callable[[], object]], effort: Effort, generator: np.random.Generator) -> list[Timing]:
    """Return the timing of every call, from runs in random order, one of each a turn."""
    for call in calls:
        for _ in range(effort.warm_up):
            call()
    times: list[list[float]] = [[] for _ in calls]
    pending = list(range(len(calls)))
    while pending:
        for _ in range(min(_STRIDE, effort.most - len(times[pending[0]]))):
            for number in generator.permutation(pending):
                started = time.perf_counter_ns()
                calls[number]()
                times[number].append((time.perf_counter_ns() - started) / 1e6)
        pending = [number for number in pending if not _settled(times[number], effort)]
    return [timing_of(np.array(values)) for values in times]


def timing_of(milliseconds: NDArray[np.float64]) -> Timing:
    """Return the median of (N,) times, and its interval by order statistics: no distribution is assumed."""
    median = float(np.median(milliseconds))
    # The library's types call the pair a float.
    interval: Any = quantile_test(milliseconds, q=median, p=0.5).confidence_interval(CONFIDENCE)
    return Timing(median, float(interval.low), float(interval.high), len(milliseconds))


def _settled(values: Sequence[float], effort: Effort) -> bool:
    return len(values) >= effort.most or timing_of(np.array(values)).interval <= effort.interval
