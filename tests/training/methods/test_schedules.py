import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpareto.training.config.client import LearningRateSchedule
from fedpareto.training.methods.schedules import largest_weight, learning_rate


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [
        ("constant", 0.2, 0.2, 0.2),
        ("cosine", 0.2, 0.1, 0.1 * (1 + math.cos(math.pi * 0.99))),
        ("step", 0.2, 0.02, 0.002),
    ],
)
def test_the_learning_rate_at_the_start_the_middle_and_the_end(
    schedule: LearningRateSchedule, start: float, middle: float, end: float
) -> None:
    rates = [learning_rate(schedule, 0.2, index, 100) for index in (0, 50, 99)]
    assert rates == pytest.approx([start, middle, end])


def test_the_step_schedule_divides_by_ten_at_half_and_at_three_quarters() -> None:
    rates = [learning_rate("step", 1.0, index, 8) for index in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_every_round_has_a_positive_rate_that_never_rises(schedule: LearningRateSchedule) -> None:
    rates = [learning_rate(schedule, 0.1, index, 37) for index in range(37)]
    assert min(rates) > 0
    assert rates == sorted(rates, reverse=True)


def test_the_largest_network_weighs_nine_tenths_at_first_and_one_share_after_80_percent() -> None:
    weights = [largest_weight(index, 100, 8) for index in range(100)]
    assert weights[0] == pytest.approx(0.9)
    assert weights[40] == pytest.approx((0.9 + 1 / 8) / 2)
    assert weights[20] == pytest.approx(1 / 8 + (0.9 - 1 / 8) * (1 + math.sqrt(0.5)) / 2)
    assert weights[79] > 1 / 8
    assert weights[80:] == pytest.approx([1 / 8] * 20)


def test_the_start_and_the_share_of_rounds_are_the_callers() -> None:
    weights = [largest_weight(index, 10, 4, start=0.5, share=0.5) for index in range(10)]
    assert weights[0] == pytest.approx(0.5)
    assert weights[5:] == pytest.approx([0.25] * 5)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(rounds=st.integers(1, 60), clients=st.integers(1, 20), start=st.floats(0.01, 0.99))
def test_the_largest_weight_never_rises_and_never_falls_below_an_equal_share(
    rounds: int, clients: int, start: float
) -> None:
    weights = [largest_weight(index, rounds, clients, start) for index in range(rounds)]
    assert all(1 / clients - 1e-12 <= weight <= 1 for weight in weights)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(weights))
