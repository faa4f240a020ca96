"""Shares that are capped: nobody has more, and nobody is lowered who need not be."""

import math

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.training.shares import largest_weight

_WEIGHTS = st.lists(st.integers(0, 1 << 30), min_size=1, max_size=12)


@runs(300)
@given(_WEIGHTS, st.floats(0.05, 1.0))
def test_nobody_has_more_than_the_share_and_nobody_is_lowered_who_need_not_be(weights: list[int], share: float) -> None:
    most = largest_weight(weights, share)
    assert most > 0
    lowered = [min(weight, most) for weight in weights]
    there, total = sum(weight > 0 for weight in weights), sum(lowered)
    # Of n clients that count at all one has at least 1/n.
    attainable = max(share, 1 / max(1, there))
    assert all(weight <= attainable * total * (1 + 1e-9) for weight in lowered)
    if math.isfinite(most) and share * there > 1 + 1e-9:
        # As little as will do: the largest has its share exactly.
        assert max(lowered) == pytest.approx(share * total)
    if all(weight <= share * sum(weights) for weight in weights):
        assert most == math.inf


@pytest.mark.parametrize(
    ("weights", "share", "most"),
    [
        ([10, 10, 1 << 30], 0.5, 20.0),
        ([10, 10, 10], 0.5, math.inf),
        ([10, 30, 20], 0.5, math.inf),
        ([5], 0.5, 5.0),
        ([5, 7], 0.5, 5.0),
        ([1, 100, 100, 100], 0.3, 3.0),
        ([0, 0], 0.5, math.inf),
        ([10, 1 << 30], 1.0, math.inf),
    ],
)
def test_by_hand(weights: list[int], share: float, most: float) -> None:
    assert largest_weight(weights, share) == pytest.approx(most)
