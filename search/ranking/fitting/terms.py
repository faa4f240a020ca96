"""The fitness as a function of its weights: the terms that they multiply, and its derivatives."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import CONVOLUTIONS, FitnessSettings
from fedpareto.supernet.space import SearchSpace

#: The fields of a fitness that hold weights, in the order of a row of them.
FIELDS = (
    "entropy_weights",
    "kind_weights",
    "depth_penalty",
    "effectiveness_weight",
    "width_penalty",
    "block_penalty",
)

#: Digits of a weight that is written.
_DIGITS = 5


class NetworkTerms(NamedTuple):
    """Terms of N networks that the fitness weights multiply.

    ``entropy`` (stages, kinds, N) is every stage's entropy by kind of convolution, ``others`` (4, N) −Q, ρ, −V and −B.
    """

    entropy: FloatArray
    others: FloatArray


class Weights(NamedTuple):
    """α (stages,), κ (kinds,), and ω, λ, γ, δ (4,)."""

    stages: FloatArray
    kinds: FloatArray
    others: FloatArray

    @property
    def flat(self) -> FloatArray:
        """All weights in a row."""
        return np.concatenate(self)

    def of_fields(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Return a mask of the weights in a row that belong to fields of these ``names``."""
        sizes = [len(self.stages), len(self.kinds), *[1] * len(self.others)]
        return np.repeat([name in names for name in FIELDS], sizes)

    def like(self, flat: FloatArray) -> "Weights":
        """Return other weights, given in a row."""
        ends = np.cumsum([len(part) for part in self])[:-1]
        return Weights(*np.split(flat, ends))


def terms_of(space: SearchSpace, genes: IntArray) -> NetworkTerms:
    """Return the terms of N networks, (N, genes)."""
    kinds = np.eye(len(CONVOLUTIONS[space.family]))
    scored = [score(space, genes, FitnessSettings(kind_weights=tuple(map(float, kind)))) for kind in kinds]
    found = scored[0]
    others = np.stack([-found.depth_regularity, found.rho, -found.width_violation, -found.blocks.astype(float)])
    return NetworkTerms(np.stack([each.entropy for each in scored], axis=1), others)


def values(terms: NetworkTerms, weights: Weights) -> FloatArray:
    """Return the fitness of N networks, (N,)."""
    entropy: FloatArray = np.einsum("j,k,jkn->n", weights.stages, weights.kinds, terms.entropy)
    return entropy + weights.others @ terms.others


def derivatives(terms: NetworkTerms, weights: Weights) -> FloatArray:
    """Return the derivatives of the fitness of N networks by each weight, (weights, N)."""
    by_stage = np.einsum("k,jkn->jn", weights.kinds, terms.entropy)
    by_kind = np.einsum("j,jkn->kn", weights.stages, terms.entropy)
    return np.concatenate([by_stage, by_kind, terms.others])


def weights_of(space: SearchSpace, settings: FitnessSettings) -> Weights:
    """Return the weights of a fitness, one for each stage and kind."""
    others = (settings.depth_penalty, settings.effectiveness_weight, settings.width_penalty, settings.block_penalty)
    return Weights(
        np.array(np.broadcast_to(settings.entropy_weights, len(space.stages))),
        np.array(np.broadcast_to(settings.kind_weights, len(CONVOLUTIONS[space.family]))),
        np.array(others),
    )


def settings_with(start: FitnessSettings, weights: Weights) -> FitnessSettings:
    """Return ``start`` with other weights, in a few digits."""
    stages, kinds, (depth, effectiveness, width, block) = (
        [float(f"{value:.{_DIGITS}g}") for value in part] for part in weights
    )
    return dataclasses.replace(
        start,
        entropy_weights=_unless_equal(start.entropy_weights, stages),
        kind_weights=_unless_equal(start.kind_weights, kinds),
        depth_penalty=depth,
        effectiveness_weight=effectiveness,
        width_penalty=width,
        block_penalty=block,
    )


def _unless_equal(start: tuple[float, ...], found: list[float]) -> tuple[float, ...]:
    """Return ``found``, or ``start`` where that says the same, perhaps with one weight for all."""
    return start if found == list(np.broadcast_to(start, len(found))) else tuple(found)
