import functools
from collections.abc import Callable

import numpy as np
import pytest
from helpers.networks.latency import FakeClock
from scipy.stats import binom

from fedpareto.search.runtimes.stopwatch import Effort, measure, measure_against, timing_of


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def _steady(clock: FakeClock, *milliseconds: float) -> list[Callable[[], object]]:
    return [lambda ms=ms: clock.wait(ms) for ms in milliseconds]  # type: ignore[misc]


def _noisy(clock: FakeClock, milliseconds: float, spread: float, seed: int = 1) -> Callable[[], object]:
    noise = np.random.default_rng(seed)
    return lambda: clock.wait(milliseconds * noise.uniform(1 - spread, 1 + spread))


def test_steady_calls_are_known_at_the_first_look() -> None:
    clock = FakeClock()
    timings = measure(_steady(clock, 1.0, 2.5, 0.01), Effort(), _generator(), clock)
    assert [(timing.ms, timing.low, timing.high, timing.runs) for timing in timings] == [
        (ms, ms, ms, 20) for ms in (1.0, 2.5, 0.01)
    ]
    assert [timing.interval for timing in timings] == [0, 0, 0]


def test_a_noisy_call_is_run_until_its_interval_is_narrow_enough_and_no_longer() -> None:
    clock = FakeClock()
    steady, noisy = measure([*_steady(clock, 1.0), _noisy(clock, 1.0, 0.2)], Effort(0.02), _generator(), clock)
    assert noisy.interval <= 0.02
    assert steady.runs == 20 < noisy.runs < 500
    assert noisy.low < noisy.ms < noisy.high


def test_no_call_is_run_more_often_than_allowed() -> None:
    clock = FakeClock()
    for most in (1, 7, 20, 33):
        timings = measure([_noisy(clock, 1.0, 0.9)], Effort(1e-6, most=most), _generator(), clock)
        assert timings[0].runs == most


def test_slow_calls_stop_at_the_look_after_their_time_is_up() -> None:
    clock = FakeClock()
    (timing,) = measure([_noisy(clock, 1000.0, 0.9)], Effort(1e-6, seconds=30.0), _generator(), clock)
    assert timing.runs == 40


def test_warm_up_runs_do_not_count() -> None:
    clock, runs = FakeClock(), [0]

    def call() -> None:
        runs[0] += 1
        clock.wait(1000.0 if runs[0] <= 5 else 1.0)

    (timing,) = measure([call], Effort(warm_up=5), _generator(), clock)
    assert (timing.ms, timing.runs, runs[0]) == (1.0, 20, 25)


def test_calls_run_in_turns_each_in_an_order_of_its_own() -> None:
    clock, order = FakeClock(), list[int]()
    calls = [functools.partial(order.append, number) for number in range(5)]
    measure(calls, Effort(warm_up=0), _generator(), clock)
    turns = [order[start : start + 5] for start in range(0, len(order), 5)]
    assert len(turns) == 20
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 10


def test_drift_is_shared_by_all_calls() -> None:
    clock, speed = FakeClock(), [1.0]

    def call() -> None:
        speed[0] *= 1.001
        clock.wait(speed[0])

    timings = measure([call] * 8, Effort(1e-9, most=60), _generator(), clock)
    medians = [timing.ms for timing in timings]
    assert max(medians) / min(medians) < 1.01 < 1.001 ** (8 * 60)


def test_times_relative_to_a_reference_know_no_drift_at_all() -> None:
    clock, turns = FakeClock(), [0]

    def slower(milliseconds: float) -> None:
        turns[0] += 1
        clock.wait(milliseconds * 1.01 ** (turns[0] // 3))

    calls: list[Callable[[], object]] = [lambda: slower(2.0), lambda: slower(0.5)]
    reference_ms, found = measure_against(lambda: slower(1.0), calls, Effort(warm_up=1), _generator(), clock)
    assert reference_ms > 1.05
    assert [timing.ms for timing in found] == pytest.approx([2.0, 0.5], rel=0.011)
    assert [timing.runs for timing in found] == [20, 20]
    assert all(timing.interval <= 0.011 for timing in found)


def test_the_reference_runs_as_long_as_any_call_does() -> None:
    clock = FakeClock()
    calls = [*_steady(clock, 3.0), _noisy(clock, 1.0, 0.3)]
    reference_ms, (steady, noisy) = measure_against(lambda: clock.wait(2.0), calls, Effort(), _generator(), clock)
    assert reference_ms == 2.0
    assert (steady.ms, steady.runs) == (1.5, 20)
    assert noisy.runs > 20
    assert noisy.ms == pytest.approx(0.5, rel=0.05)


def test_the_interval_is_that_of_order_statistics() -> None:
    values = np.arange(1.0, 102.0)
    timing = timing_of(values)
    # The ranks that a binomial count of values below the median leaves out on each side with 2.5 % at most.
    rank = int(binom.ppf(0.025, 101, 0.5))
    assert timing.ms == 51.0
    assert (timing.low, timing.high) == (values[rank - 1], values[101 - rank])
    assert timing.interval == (timing.high - timing.low) / 2 / 51.0


def test_scaled_timings_keep_their_relative_interval() -> None:
    timing = timing_of(np.arange(1.0, 50.0))
    assert timing.scaled(4.0).ms == 4 * timing.ms
    assert timing.scaled(4.0).interval == pytest.approx(timing.interval)
