"""Architecture search as a pymoo problem over integer genes, evaluated a whole population at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from cache.limits import Limits
from fitness.score import effectiveness_bound, score
from supernet.genes import gene_layout
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, SearchSpace


class ArchitectureProblem(Problem):
    """Maximise fitness and minimise MACs, within limits.

    Constraints (pymoo's ``G ≤ 0``): every bound of the limits, relative, and ``ρ ≤ ρ0``.
    """

    def __init__(self, space: SearchSpace, settings: FitnessSettings, limits: Limits) -> None:
        sizes = gene_layout(space).sizes
        super().__init__(
            n_var=len(sizes),
            n_obj=2,
            n_ieq_constr=1 + limits.count,
            xl=np.zeros(len(sizes), dtype=np.int64),
            xu=sizes - 1,
            vtype=int,
        )
        self.space, self.settings, self.limits = space, settings, limits

    def feasible(self, genes: IntArray) -> tuple[IntArray, NDArray[np.float64]]:
        """Return those of (N, genes) vectors that meet all constraints, and their objectives, (M, 2)."""
        objectives, excess = self.evaluate(genes, return_values_of=["F", "G"])
        kept = (excess <= 0).all(axis=1)
        return genes[kept], objectives[kept]

    def _evaluate(self, x: NDArray[np.int64], out: dict[str, Any], *args: object, **kwargs: object) -> None:
        del args, kwargs
        scores = score(self.space, x, self.settings)
        out["F"] = np.stack([-scores.fitness, scores.macs.astype(np.float64)], axis=1)
        rho_excess = (scores.rho - effectiveness_bound(self.settings))[:, None]
        out["G"] = np.concatenate([rho_excess, self.limits.violations(self.space, x, scores).T], axis=1)
