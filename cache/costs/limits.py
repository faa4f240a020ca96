"""Limits on the costs of architectures, with an error for limits that no architecture can meet."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import COST_NAMES, AdditiveCost, LimitedCost, count_cost
from fedpareto.fitness.score import Scores, score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.genes import largest_genes, smallest_genes
from fedpareto.supernet.space import SearchSpace


class Bound(NamedTuple):
    """One bound on one counted cost: ``sign·(cost − value) ≤ 0``; sign 1 is an upper bound, −1 a lower one."""

    cost: str
    value: int
    sign: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on costs; None where there is none.

    Attributes:
        macs: most multiply–accumulates of one image.
        params: most parameters.
        min_macs: least multiply–accumulates.
        extras: other costs with their limits, such as a latency table or the memory of feature maps.
    """

    macs: int | None = None
    params: int | None = None
    min_macs: int | None = None
    extras: tuple[LimitedCost, ...] = ()

    def bounds(self) -> Iterator[Bound]:
        """Yield the bounds on counted costs that are set."""
        if self.macs is not None:
            yield Bound("macs", self.macs, 1)
        if self.params is not None:
            yield Bound("params", self.params, 1)
        if self.min_macs is not None:
            yield Bound("macs", self.min_macs, -1)

    def words(self) -> str:
        """Return the bounds in words; "any costs" without one."""
        counted = [
            f"{'at most' if bound.sign > 0 else 'at least'} {format_quantity(bound.value)} {COST_NAMES[bound.cost]}"
            for bound in self.bounds()
        ]
        return " and ".join([*counted, *(extra.words() for extra in self.extras)]) or "any costs"

    def costs(self, space: SearchSpace) -> list[LimitedCost]:
        """Return the costs that have upper bounds, MACs first."""
        counted = [count_cost(space, bound.cost, bound.value) for bound in self.bounds() if bound.sign > 0]
        return [*counted, *self.extras]

    def additive(self, space: SearchSpace) -> list[AdditiveCost]:
        """Return the upper bounds as additive costs, MACs first."""
        return [cost.additive() for cost in self.costs(space)]

    def violations(self, space: SearchSpace, genes: IntArray, scores: Scores) -> NDArray[np.float64]:
        """Return the relative excess over every bound, shape (bounds, N); at most 0 where it is met.

        ``scores`` are those of ``genes``, (N, genes).
        """
        # Floats: a user's bound may be beyond any 64-bit integer.
        rows = [bound.sign * (getattr(scores, bound.cost) - float(bound.value)) for bound in self.bounds()]
        rows = [row / bound.value for row, bound in zip(rows, self.bounds(), strict=True)]
        rows += [extra.of(space, genes) / extra.most - 1 for extra in self.extras]
        return np.stack(rows) if rows else np.empty((0, len(scores.macs)))

    def violates(self, space: SearchSpace, genes: IntArray) -> bool:
        """Return True if any of the architectures, (N, genes), breaks any bound."""
        return bool((self.violations(space, genes, score(space, genes)) > 0).any())

    @property
    def count(self) -> int:
        """Number of bounds."""
        return len(list(self.bounds())) + len(self.extras)


def check_reachable(space: SearchSpace, limits: Limits) -> None:
    """Refuse bounds on counted costs that no network of the space meets.

    The network with every choice at its least has the least of every count, so one look decides each upper
    bound, and the largest network decides a lower one.

    Raises:
        BudgetError: naming the bound and the smallest (largest) network the space has.
    """
    extremes = score(space, np.stack([smallest_genes(space), largest_genes(space)]))
    for bound in limits.bounds():
        least, most = (int(value) for value in getattr(extremes, bound.cost))
        name = COST_NAMES[bound.cost]
        if bound.sign > 0 and bound.value < least:
            raise BudgetError(
                f"no network of {space.name} has at most {bound.value:,} {name}; the smallest has "
                f"{least:,} ({format_quantity(least)})"
            )
        if bound.sign < 0 and bound.value > most:
            raise BudgetError(
                f"no network of {space.name} has at least {bound.value:,} {name}; the largest has "
                f"{most:,} ({format_quantity(most)})"
            )
    if limits.macs is not None and limits.min_macs is not None and limits.min_macs > limits.macs:
        raise BudgetError(f"the least MACs ({limits.min_macs:,}) exceed the most ({limits.macs:,}); swap them")
