"""Timing of calls, which take turns so that drift affects all alike, until their medians are precise enough."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import quantile_test

#: Level of every interval.
CONFIDENCE = 0.95

Call = Callable[[], object]

#: Something that counts nanoseconds.
Clock = Callable[[], int]

#: Milliseconds of a call's runs, (runs,).
Times = NDArray[np.float64]

#: Function from a call's times and those of the last call to the values whose median is wanted.
TimeEstimator = Callable[[Times, Times], Times]

#: Runs of each call between two looks at the intervals.
_STRIDE = 20


class Effort(NamedTuple):
    """Effort of a measurement: the precision of the medians, and limits on the runs.

    Attributes:
        interval: half the width of the confidence interval of a median, relative to it, that is enough.
        most: most runs of a call.
        warm_up: runs of each call that do not count.
        seconds: no call is run more often than in one more look at the intervals after this time by the clock.
    """

    interval: float = 0.02
    most: int = 500
    warm_up: int = 5
    seconds: float = math.inf


class Timing(NamedTuple):
    """The median of a call's times in milliseconds, with its 95 % confidence interval and the number of runs."""

    ms: float
    low: float
    high: float
    runs: int

    @property
    def interval(self) -> float:
        """Half the width of the interval, relative to the median; 0 where nothing took any time."""
        return (self.high - self.low) / 2 / self.ms if self.high > self.low else 0.0

    def scaled(self, factor: float) -> "Timing":
        """Return the timing in units of which ``factor`` make a millisecond."""
        return Timing(self.ms * factor, self.low * factor, self.high * factor, self.runs)


def measure(
    calls: Sequence[Call], effort: Effort, generator: np.random.Generator, clock: Clock = time.perf_counter_ns
) -> list[Timing]:
    """Return the timing of every call, from runs in random order, one of each a turn."""
    return [timing_of(times) for times in _take_turns(calls, effort, generator, clock, lambda times, _: times)]


def measure_against(
    reference: Call,
    calls: Sequence[Call],
    effort: Effort,
    generator: np.random.Generator,
    clock: Clock = time.perf_counter_ns,
) -> tuple[float, list[Timing]]:
    """Return the median time of a reference in milliseconds, and the timing of every call in units of it.

    The reference runs in every turn, and a time counts relative to the reference's in the same turn: a machine that
    becomes slower for a while changes little, and timings taken at different times can be compared.
    """
    found = _take_turns([*calls, reference], effort, generator, clock, lambda times, last: times / last[: len(times)])
    return timing_of(found[-1]).ms, [timing_of(times / found[-1][: len(times)]) for times in found[:-1]]


def _take_turns(
    calls: Sequence[Call], effort: Effort, generator: np.random.Generator, clock: Clock, judged: TimeEstimator
) -> list[Times]:
    """Return the times of every call in milliseconds; the last call runs as long as any of them does.

    A call is done when its times, as ``judged`` beside those of the last call, are known well enough.
    """
    for call in calls:
        for _ in range(effort.warm_up):
            call()
    times: list[list[float]] = [[] for _ in calls]
    pending, last, began = list(range(len(calls))), len(calls) - 1, clock()
    while pending:
        turn = sorted({*pending, last})
        for _ in range(min(_STRIDE, effort.most - len(times[last]))):
            for number in generator.permutation(turn):
                started = clock()
                calls[number]()
                times[number].append((clock() - started) / 1e6)
        if len(times[last]) >= effort.most or clock() - began >= effort.seconds * 1e9:
            break
        found = [np.array(values) for values in times]
        pending = [i for i in pending if timing_of(judged(found[i], found[last])).interval > effort.interval]
    return [np.array(values) for values in times]


def timing_of(milliseconds: Times) -> Timing:
    """Return the median of (N,) times, and its interval by order statistics: no distribution is assumed.

    Fewer than six times have no interval of that level; theirs is from the least to the greatest.
    """
    low, high = _interval_ranks(len(milliseconds))
    ordered = np.sort(milliseconds)
    return Timing(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), len(ordered))


@functools.lru_cache(maxsize=1024)
def _interval_ranks(count: int) -> tuple[int, int]:
    """Return the ranks among sorted times at which the interval of their median begins and ends."""
    ranks = np.arange(count)
    # The library's types call the pair a float.
    interval: Any = quantile_test(ranks, q=float(np.median(ranks)), p=0.5).confidence_interval(CONFIDENCE)
    if not np.isfinite([interval.low, interval.high]).all():
        return 0, count - 1
    return int(interval.low), int(interval.high)
