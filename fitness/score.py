"""The analytic fitness of DeepMAD and DeepFedNAS, vectorised over genes.

``F = Σ_j α_j·H_j − ω·Q + λ·ρ − γ·V`` subject to ``ρ ≤ ρ0``; Shen et al., "DeepMAD: Mathematical
Architecture Design for Deep Convolutional Neural Network" (2023), and DeepFedNAS (2026).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fitness.costs import macs, parameters, peak_activation_bytes
from supernet.genes import as_genes, choices
from supernet.layers import LayerTable, layer_table
from supernet.layouts import IntArray
from supernet.space import FitnessSettings, SearchSpace, check_fitness

FloatArray = NDArray[np.float64]

#: Architectures worked on at a time: their columns stay in the processor's cache.
_CHUNK = 512


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
    table, chosen = layer_table(space, genes), choices(space, genes)
    log_widths, scored = _log_widths(table, len(space.stages))
    entropy = _entropy(table, log_widths, chosen.width, settings.entropy)
    layers = scored.sum(axis=0)
    rho = layers / np.exp(log_widths.sum(axis=0) / layers)
    depth_regularity = np.exp(chosen.depth.var(axis=0))
    falls = np.maximum(0, chosen.width[:-1] - chosen.width[1:]).sum(axis=0).astype(np.float64)
    alphas = np.broadcast_to(np.asarray(settings.entropy_weights), (len(space.stages),))
    fitness = (
        alphas @ entropy
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


def _log_widths(table: LayerTable, stages: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return ``ln w`` of every scored convolution (0 elsewhere) and which rows are scored.

    ``w = c_in·k²/groups``; scored are the convolutions of stem and stages, not squeeze-excite, head and
    classifier.
    """
    rows = (table.kind == "conv") & (table.stage <= stages)
    scored = rows[:, None] & table.active
    width = np.where(scored, table.c_in * table.kernel * table.kernel // table.groups, 1)
    return np.log(width), scored


def _entropy(table: LayerTable, log_widths: FloatArray, widths: IntArray, form: str) -> FloatArray:
    """Return ``H_j = ln(r_j²·c_j)·Σ ln w`` of every stage, shape (stages, N)."""
    stages = len(widths)
    sums = np.stack([log_widths[table.stage == j].sum(axis=0) for j in range(1, stages + 1)])
    sides = np.stack([table.h_out[np.flatnonzero(table.stage == j)[-1]] for j in range(1, stages + 1)])
    if form == "prefix":
        sums = sums.cumsum(axis=0)
    return np.log(sides * sides * widths) * sums
