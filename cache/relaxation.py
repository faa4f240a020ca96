"""An upper bound on entropy under limits: the limits priced instead of enforced (Lagrangian relaxation).

Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of resources" (1963).
"""

import dataclasses

import numpy as np

from cache.additive import Options, Plan
from fitness.blocks import FloatArray

#: Least and most logarithm of a price, relative to the fitness over the limit.
_LOGARITHMS = (-12.0, 6.0)


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """Prices of the costs, and the most that entropy less priced costs can still gain.

    Attributes:
        prices: one a cost, (costs,).
        inside: by stage and blocks so far, (output widths,); the next block may be any.
        before: by stage, (input widths,); after the last stage, less the head's priced costs.
    """

    prices: FloatArray
    inside: tuple[tuple[FloatArray, ...], ...]
    before: tuple[FloatArray, ...]

    def start(self, plan: Plan) -> float:
        """Return the bound for a whole network."""
        return float((self.before[0] - self.prices @ plan.stem.costs).max())


def relax(plan: Plan, depths: tuple[int, ...], later_weights: FloatArray, prices: FloatArray) -> Relaxation:
    """Return the relaxation at given ``prices``.

    ``later_weights`` (stages,) is what entropy may gain in all later stages for each unit of a stage's ``ln w``.
    """
    before = [-(prices @ plan.head)]
    inside: list[tuple[FloatArray, ...]] = []
    for stage, later in zip(reversed(plan.stages), later_weights[::-1], strict=True):
        ahead: list[FloatArray] = []
        for d in reversed(range(depths[-1])):
            ways = [before[0]] if d + 1 in depths else []
            if ahead and stage.later is not None:
                ways.append(_gain(stage.later, later, prices) + ahead[0])
            ahead.insert(0, np.max(ways, axis=0))
        entered = (_gain(stage.first, later, prices) - stage.falls + ahead[0]).max(axis=1)
        inside.insert(0, tuple(ahead))
        before.insert(0, entered)
    return Relaxation(prices, tuple(inside), tuple(before))


def tightest(plan: Plan, depths: tuple[int, ...], later_weights: FloatArray, limits: FloatArray) -> Relaxation:
    """Return the relaxation whose prices give the least upper bound that the search for them finds.

    Any prices give a valid bound; costs without a limit have none.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - frontiers that are kept do without

    limited = np.flatnonzero(np.isfinite(limits))
    free = relax(plan, depths, later_weights, np.zeros(len(limits)))
    if not len(limited):
        return free
    scale = abs(free.start(plan)) / np.where(limits > 0, limits, 1)

    def at(logarithms: FloatArray) -> Relaxation:
        prices = np.zeros(len(limits))
        prices[limited] = scale[limited] * np.exp(logarithms)
        return relax(plan, depths, later_weights, prices)

    def bound(logarithms: FloatArray) -> float:
        relaxation = at(logarithms)
        return relaxation.start(plan) + float(relaxation.prices[limited] @ limits[limited])

    # Where no network meets the limits, ever higher prices lower the bound without end.
    start, ends = np.full(len(limited), -1.0), [_LOGARITHMS] * len(limited)
    found = minimize(bound, start, method="Nelder-Mead", bounds=ends, options={"maxiter": 100, "xatol": 1e-3})
    return at(found.x)


def _gain(options: Options, later: float, prices: FloatArray) -> FloatArray:
    """Return the most that one block gains, by its widths; ``later`` for each unit of its ``ln w``."""
    gains = options.gains + later * options.log_widths - np.tensordot(prices, options.costs, axes=1)
    best: FloatArray = gains.max(axis=-1)
    return best
