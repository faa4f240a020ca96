"""Shares that are capped: no one of several weights may count for more than a share of their sum."""

import math
from collections.abc import Iterable


def largest_weight(weights: Iterable[float], share: float) -> float:
    """Largest weight at which no weight, when all larger ones are lowered to it, is more than a share of their sum.

    With the k largest of n weights lowered to c, and R the sum of the rest, c = share·(k·c + R), so
    c = share·R / (1 − share·k). Fewer than 1/share weights cannot all keep to the share: then they all become equal.

    Args:
        weights: numbers from 0.
        share: above 0, at most 1.

    Returns:
        the largest weight, which is infinite where none needs to be lowered.
    """
    falling = sorted(weights, reverse=True)
    rest = float(sum(falling))
    if not falling or rest <= 0 or falling[0] <= share * rest:
        return math.inf
    for count, weight in enumerate(falling, 1):
        rest -= weight
        if share * count >= 1 or rest <= 0:
            # The rest alone cannot hold the others down: all that have a weight get the same.
            return min(weight for weight in falling if weight > 0)
        capped = share * rest / (1 - share * count)
        if count == len(falling) or falling[count] <= capped:
            return capped
    raise AssertionError("the last weight ends the loop")
