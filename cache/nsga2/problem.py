"""Architecture search as a pymoo problem over integer genes, evaluated a whole population at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from fedpareto.cache.objectives import Objectives
from fedpareto.supernet.genes import gene_layout


class ArchitectureProblem(Problem):
    """The objectives of a search as pymoo asks for them.

    Constraints (pymoo's ``G ≤ 0``): every bound of the limits, relative, and ``ρ ≤ ρ0``.
    """

    def __init__(self, objectives: Objectives) -> None:
        sizes = gene_layout(objectives.space).sizes
        super().__init__(
            n_var=len(sizes),
            n_obj=2,
            n_ieq_constr=1 + objectives.limits.count,
            xl=np.zeros(len(sizes), dtype=np.int64),
            xu=sizes - 1,
            vtype=int,
        )
        self.objectives = objectives

    def _evaluate(self, x: NDArray[np.int64], out: dict[str, Any], *args: object, **kwargs: object) -> None:
        del args, kwargs
        out["F"], out["G"] = self.objectives.of(x)
