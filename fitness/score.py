"""The analytic fitness of DeepMAD and DeepFedNAS, which rates architectures without training them.

``F = Σ_j α_j·H_j − ω·Q + λ·ρ − γ·V − δ·B + Σ θ`` subject to ``ρ ≤ ρ0``; Shen et al., "DeepMAD: Mathematical
Architecture Design for Deep Convolutional Neural Network" (2023), and DeepFedNAS (2026). Weights κ by kind of
convolution, δ and learned terms θ are ours: the published form has κ = 1, δ = 0 and no θ. Each term is explained in
``docs/fitness.md``. All architectures of a batch of gene vectors are scored at once.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpareto.fitness.learned import learned_sum
from fedpareto.fitness.part_tables import Parts, choices_made, entropy_widths, space_terms
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings, check_fitness
from fedpareto.supernet.genes import as_genes, encode, gene_layout
from fedpareto.supernet.space import SearchSpace

#: Architectures worked on at a time: their columns stay in the processor's cache.
_CHUNK = 4096

#: Relative tolerance of ρ, a function of a sum of logarithms, for the order in which the sum is added.
_RHO_TOLERANCE = 1e-9


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
    blocks: IntArray
    entropy: FloatArray


def effectiveness_bound(settings: FitnessSettings) -> float:
    """Return the bound on ρ: ρ0 with a tolerance for rounding."""
    return settings.max_effectiveness * (1 + _RHO_TOLERANCE)


def score(space: SearchSpace, genes: ArrayLike, settings: FitnessSettings | None = None) -> Scores:
    """Score N architectures: costs, fitness and its terms; ``genes`` is (N, genes) or one vector.

    ``settings`` default to the space's own.

    Raises:
        ArchitectureError: the genes do not fit the space.
        SpaceError: the settings do not fit the space.
    """
    weights = settings or space.fitness
    check_fitness(weights, space)
    array = as_genes(space, genes)
    starts = range(0, max(1, len(array)), _CHUNK)
    parts = [_score_chunk(space, array[start : start + _CHUNK], weights) for start in starts]
    return Scores(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


class _Sums(NamedTuple):
    """Sums over the parts of N architectures; log-widths, widths, sides and depths have one row a stage.

    ``log_widths`` are ``Σ ln w``, which enter ρ; ``entropy_widths`` are ``Σ κ·ln w``, which enter H.
    """

    macs: IntArray
    params: IntArray
    activation_bytes: IntArray
    layers: IntArray
    stem_log_widths: FloatArray
    log_widths: FloatArray
    entropy_widths: FloatArray
    widths: IntArray
    sides: IntArray
    depths: IntArray


def _score_chunk(space: SearchSpace, genes: IntArray, settings: FitnessSettings) -> Scores:
    columns = np.ascontiguousarray(genes.T)
    sums = _sums(space, columns, settings)
    rho = sums.layers / np.exp((sums.stem_log_widths + _sum_rows(sums.log_widths)) / sums.layers)
    deviation = sums.depths - sums.depths.sum(axis=0) / len(sums.depths)
    depth_regularity = np.exp(_sum_rows(deviation * deviation) / len(sums.depths))
    falls = np.maximum(0, sums.widths[:-1] - sums.widths[1:]).sum(axis=0).astype(np.float64)
    # H_j = ln(r_j²·c_j)·Σ κ·ln w, over the stage's own blocks or over all blocks up to it.
    over = sums.entropy_widths.cumsum(axis=0) if settings.entropy == "prefix" else sums.entropy_widths
    entropy = np.log(sums.sides * sums.sides * sums.widths) * over
    blocks = sums.depths.sum(axis=0)
    alphas = np.broadcast_to(np.asarray(settings.entropy_weights), (len(space.stages),))
    fitness = (
        _sum_rows(alphas[:, None] * entropy)
        - settings.depth_penalty * depth_regularity
        + settings.effectiveness_weight * rho
        - settings.width_penalty * falls
    )
    if settings.block_penalty:
        fitness = fitness - settings.block_penalty * blocks
    if settings.learned is not None:
        fitness = fitness + learned_sum(space, columns, settings.learned)
    return Scores(
        macs=sums.macs,
        params=sums.params,
        activation_bytes=sums.activation_bytes,
        fitness=fitness,
        feasible=rho <= effectiveness_bound(settings),
        rho=rho,
        depth_regularity=depth_regularity,
        width_violation=falls,
        blocks=blocks,
        entropy=entropy,
    )


def _sums(space: SearchSpace, columns: IntArray, settings: FitnessSettings) -> _Sums:
    """Return the sums over the parts of N architectures; ``columns`` is (genes, N)."""
    made, terms, layout = choices_made(space, columns), space_terms(space), gene_layout(space)
    depths = np.asarray(space.depths)[columns[layout.depth]]
    macs = terms.stem.macs[made.stem] + terms.head.macs[made.head]
    params = terms.stem.params[made.stem] + terms.head.params[made.head]
    peak = np.maximum(terms.stem.activation_bytes[made.stem], terms.head.activation_bytes[made.head])
    layers = terms.stem.layers[made.stem]
    log_widths = np.zeros(depths.shape)
    for s, slots in enumerate(made.blocks):
        for index, table in zip(slots, terms.blocks[s], strict=True):
            macs += table.macs[index]
            params += table.params[index]
            layers += table.layers[index]
            log_widths[s] += table.log_widths[index]
            np.maximum(peak, table.activation_bytes[index], out=peak)
    in_entropy = _kind_sums(space, made, settings) if settings.weighs_kinds else log_widths
    sides = np.stack([tables[0].side[slots[0]] for tables, slots in zip(terms.blocks, made.blocks, strict=True)])
    widths = np.stack([np.asarray(list(w))[g] for w, g in zip(space.width_choices, columns[layout.width], strict=True)])
    stem = terms.stem.log_widths[made.stem]
    return _Sums(macs, params, peak, layers, stem, log_widths, in_entropy, widths, sides, depths)


def _kind_sums(space: SearchSpace, made: Parts[IntArray], settings: FitnessSettings) -> FloatArray:
    """Return ``Σ κ·ln w`` over the blocks of every stage of N architectures, (stages, N)."""
    tables = entropy_widths(space, settings).blocks
    return np.stack(
        [
            _sum_rows(np.stack([table[index] for index, table in zip(*both, strict=True)]))
            for both in zip(made.blocks, tables, strict=True)
        ]
    )


def _sum_rows(rows: FloatArray) -> FloatArray:
    """Return the sum over the first axis, added in order, as numpy's own order depends on the other axis."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total


@functools.lru_cache(maxsize=4096)
def macs_of(space: SearchSpace, architecture: Architecture) -> int:
    """Return the multiply–accumulates of an architecture for one image.

    Raises:
        ArchitectureError: the architecture is not in the space.
    """
    return int(score(space, encode(space, architecture)).macs[0])
