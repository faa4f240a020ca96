"""Genetic operators for integer genes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem


class StepMutation(Mutation):
    """Move genes one step up or down, or redraw them.

    Choices are ordered (a wider stage, a larger kernel), so that a step is the smallest change of MACs a
    gene can make; a redraw leaves local optima. Each gene changes with probability 1/genes.
    """

    def __init__(self, redraw: float = 0.25) -> None:
        super().__init__()
        self.redraw = redraw

    def _do(
        self,
        problem: Problem,
        x: NDArray[np.int64],
        *args: object,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> NDArray[np.int64]:
        del args, kwargs
        changed = random_state.random(x.shape) < 1 / x.shape[1]
        stepped = np.clip(x + random_state.choice([-1, 1], size=x.shape), problem.xl, problem.xu)
        drawn = random_state.integers(problem.xl, problem.xu + 1, size=x.shape)
        moved = np.where(random_state.random(x.shape) < self.redraw, drawn, stepped)
        result: NDArray[np.int64] = np.where(changed, moved, x)
        return result
