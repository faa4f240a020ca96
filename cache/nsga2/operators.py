"""Genetic operators for integer genes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.mutation import Mutation

from fedpareto.cache.nsga2.local_search import exchange_units
from fedpareto.cache.nsga2.problem import ArchitectureProblem
from fedpareto.supernet.space import SearchSpace


class ExchangeMutation(Mutation):
    """Change single genes, or trade: one unit a step up for another a step down.

    Choices are ordered (a wider stage, a larger kernel), so that a step is the least a gene can change MACs.
    Near a budget a single step up breaks it and a step down loses fitness; a trade does neither. Units are
    single genes and, for each stage, all its kernels and all its expand ratios.
    """

    def __init__(self, space: SearchSpace, trade: float = 0.5, redraw: float = 0.25) -> None:
        super().__init__()
        self.units, self.trade, self.redraw = exchange_units(space), trade, redraw

    def _do(
        self,
        problem: ArchitectureProblem,
        x: NDArray[np.int64],
        *args: object,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> NDArray[np.int64]:
        del args, kwargs
        trades = random_state.random((len(x), 1)) < self.trade
        moved = np.where(trades, self._traded(x, random_state), self._changed(problem, x, random_state))
        # pymoo keeps bounds and individuals as floats.
        clipped: NDArray[np.int64] = np.clip(moved, problem.xl, problem.xu).astype(np.int64)
        return clipped

    def _traded(self, x: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        if not len(self.units):
            return x
        up, down = random.integers(len(self.units), size=(2, len(x)))
        traded: NDArray[np.int64] = x + self.units[up] - self.units[down]
        return traded

    def _changed(
        self, problem: ArchitectureProblem, x: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Each gene moves a step, or is redrawn, with probability 1/genes."""
        changed = random.random(x.shape) < 1 / x.shape[1]
        stepped = x + random.choice([-1, 1], size=x.shape)
        drawn = random.integers(problem.xl, problem.xu + 1, size=x.shape)
        return np.where(changed, np.where(random.random(x.shape) < self.redraw, drawn, stepped), x)
