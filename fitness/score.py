"""The analytic fitness of DeepMAD and DeepFedNAS, vectorised over genes.

``F = Σ_j α_j·H_j − ω·Q + λ·ρ − γ·V`` subject to ``ρ ≤ ρ0``; Shen et al., "DeepMAD: Mathematical
Architecture Design for Deep Convolutional Neural Network" (2023), and DeepFedNAS (2026).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fitness.costs import macs, parameters, peak_activation_bytes
from supernet.genes import as_genes, choices
from supernet.layers import LayerTable, table_of
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, SearchSpace, check_fitness

FloatArray = NDArray[np.float64]

#: Architectures worked on at a time: their columns stay in the processor's cache.
_CHUNK = 1024


class Scores(NamedTuple):
    """Costs, fitness and its terms of N architectures: arrays of shape (N,), ``entropy`` (stages, N).

    ``fitness`` is computed for every architecture; ``feasible`` says whether ``ρ ≤ ρ0``.
    """

    macs: IntArray
    params: IntArray
    activation_bytes: IntArray
    fitness: FloatArray
    feasible: NDArray[np.bool_]
    rho: FloatArray
    depth_regularity: FloatArray
    width_violation: FloatArray
    entropy: FloatArray


def score(space: SearchSpace, genes: ArrayLike, settings: FitnessSettings | None = None) -> Scores:
    """Return costs and fitness of N architectures; ``genes`` is (N, genes) or one vector.

    ``settings`` default to the space's own.

    Raises:
        ArchitectureError: the genes do not fit the space.
        SpaceError: the settings do not fit the space.
    """
    weights = settings or space.fitness
    check_fitness(weights, len(space.stages))
    array = as_genes(space, genes)
    starts = range(0, max(1, len(array)), _CHUNK)
    parts = [_score_chunk(space, array[start : start + _CHUNK], weights) for start in starts]
    return Scores(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


def _score_chunk(space: SearchSpace, genes: IntArray, settings: FitnessSettings) -> Scores:
    chosen = choices(space, genes)
    table = table_of(space, chosen)
    rows = _scored_rows(table, len(space.stages))
    active = table.active[rows]
    log_widths = np.log(np.where(active, table.fan_in[rows], 1))
    entropy = _entropy(table, log_widths, table.stage[rows], chosen.width, settings.entropy)
    layers = active.sum(axis=0)
    rho = layers / np.exp(_sum_rows(log_widths) / layers)
    deviation = chosen.depth - chosen.depth.sum(axis=0) / len(chosen.depth)
    depth_regularity = np.exp(_sum_rows(deviation * deviation) / len(chosen.depth))
    falls = np.maximum(0, chosen.width[:-1] - chosen.width[1:]).sum(axis=0).astype(np.float64)
    alphas = np.broadcast_to(np.asarray(settings.entropy_weights), (len(space.stages),))
    fitness = (
        _sum_rows(alphas[:, None] * entropy)
        - settings.depth_penalty * depth_regularity
        + settings.effectiveness_weight * rho
        - settings.width_penalty * falls
    )
    return Scores(
        macs=macs(table),
        params=parameters(table),
        activation_bytes=peak_activation_bytes(table),
        fitness=fitness,
        feasible=rho <= settings.max_effectiveness,
        rho=rho,
        depth_regularity=depth_regularity,
        width_violation=falls,
        entropy=entropy,
    )


def _scored_rows(table: LayerTable, stages: int) -> IntArray:
    """Return the rows of the scored convolutions: those of stem and stages, not the head's."""
    return np.flatnonzero((table.kind == "conv") & (table.stage <= stages))


def _sum_rows(rows: FloatArray) -> FloatArray:
    """Return the sum over the first axis, added in order: numpy's own order depends on the other axis."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total


def _entropy(table: LayerTable, log_widths: FloatArray, stage: IntArray, widths: IntArray, form: str) -> FloatArray:
    """Return ``H_j = ln(r_j²·c_j)·Σ ln w`` of every stage, shape (stages, N)."""
    stages = range(1, len(widths) + 1)
    sums = np.stack([_sum_rows(log_widths[stage == j]) for j in stages])
    sides = np.stack([table.h_out[np.flatnonzero(table.stage == j)[-1]] for j in stages])
    if form == "prefix":
        sums = sums.cumsum(axis=0)
    entropy: FloatArray = np.log(sides * sides * widths) * sums
    return entropy
