"""Spaces small enough to list every network of, what to score them with, and the costs they are limited by."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.fitness.part_tables import FitnessTerms, Parts, space_terms
from fedpareto.fitness.score import Scores, score
from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import gene_layout
from fedpareto.supernet.space import SearchSpace
from helpers.networks.learned import learned_terms, most
from helpers.networks.strategies import user_spaces

#: Fields of a space that are shortened, in this order of the equally long ones, to make a space small.
_CHOICES = ("expands", "kernels", "width_multipliers", "depths", "resolutions")


class Case(NamedTuple):
    """A space with weights, and all its gene vectors, scored."""

    space: SearchSpace
    weights: FitnessSettings
    genes: IntArray
    scores: Scores

    @property
    def tolerance(self) -> float:
        """What sums of the same terms in another order may differ by: ulps of the largest term, not of the sum."""
        # Kinds of convolutions may cancel: what their logarithms come to is seen where all count alike.
        plain = score(self.space, self.genes, dataclasses.replace(self.weights, kind_weights=(1.0,))).entropy
        heaviest = np.abs(self.weights.kind_weights).max() * np.abs(self.weights.entropy_weights).max()
        terms = heaviest * np.abs(plain).sum(axis=0).max() + abs(self.weights.block_penalty) * self.scores.blocks.max()
        rho = abs(self.weights.effectiveness_weight) * self.scores.rho.max()
        learned = 0.0 if self.weights.learned is None else most(self.weights.learned)
        return 1e-12 * max(1.0, float(terms), float(rho), learned, float(np.abs(self.scores.fitness).max()))


def all_genes(space: SearchSpace) -> IntArray:
    """Every gene vector of a space, (N, genes)."""
    sizes = gene_layout(space).sizes
    return np.indices(sizes.tolist()).reshape(len(sizes), -1).T


def narrowed(space: SearchSpace, most: int) -> SearchSpace:
    """The space with so many of its choices that it has at most ``most`` gene vectors."""
    while math.prod(map(int, gene_layout(space).sizes)) > most:
        longest = max(_CHOICES, key=lambda name: len(getattr(space, name)))
        if len(getattr(space, longest)) > 1:
            space = dataclasses.replace(space, **{longest: getattr(space, longest)[1:]})
        else:
            space = dataclasses.replace(
                space, stem=dataclasses.replace(space.stem, multipliers=space.stem.multipliers[1:])
            )
    return space


def small_spaces(most: int = 20_000) -> st.SearchStrategy[SearchSpace]:
    """Spaces of both families with at most ``most`` gene vectors."""
    return user_spaces().map(lambda space: narrowed(space, most))


@st.composite
def weights_of(draw: st.DrawFn, stages: int) -> FitnessSettings:
    """Weights of either sign, 0 and large ones, and a ρ0 that no network exceeds.

    Kinds of convolutions are weighed in half of the draws that sum the entropy of stages.
    """
    alphas = st.sampled_from((1.0, 0.3, -0.5, 2.0, 0.0))
    count = draw(st.sampled_from((1, stages)))
    entropy: Literal["stage", "prefix"] = draw(st.sampled_from(("stage", "prefix")))
    kinds = st.just((1.0,))
    if entropy == "stage":
        kinds |= st.tuples(*[st.sampled_from((1.0, 0.0, -0.7, 0.25, 3.0))] * 3)
    return FitnessSettings(
        entropy=entropy,
        kind_weights=draw(kinds),
        entropy_weights=tuple(draw(st.lists(alphas, min_size=count, max_size=count))) if count > 1 else (1.0,),
        depth_penalty=draw(st.sampled_from((0.0, 10.0, 1.0, -3.0))),
        effectiveness_weight=draw(st.sampled_from((0.0, 5.0, 50.0, 1000.0, -5.0, -300.0))),
        width_penalty=draw(st.sampled_from((1.0, 0.0, 8.0, -1.0))),
        block_penalty=draw(st.sampled_from((0.0, 25.0, 1.5, -10.0))),
        max_effectiveness=100.0,
    )


@st.composite
def cases(draw: st.DrawFn, networks: int = 20_000) -> Case:
    """Small spaces with weights, and with learned terms or without.

    ρ0 lets all networks pass, or none above some network's ρ, or a little less.
    """
    space = draw(small_spaces(networks))
    weights = draw(weights_of(len(space.stages)))
    weights = dataclasses.replace(weights, learned=draw(st.none() | learned_terms(space)))
    genes = all_genes(space)
    bound = draw(st.sampled_from(("inactive", "exact", "between")))
    if bound != "inactive":
        rho = float(draw(quantile(score(space, genes, weights).rho)))
        weights = dataclasses.replace(weights, max_effectiveness=rho if bound == "exact" else rho * (1 - 1e-6))
    return Case(space, weights, genes, score(space, genes, weights))


def quantile(values: NDArray[np.number]) -> st.SearchStrategy[float]:
    """One of the values, each share of them as likely."""
    ordered = np.sort(values)
    return st.integers(0, 40).map(lambda share: float(ordered[(len(ordered) - 1) * share // 40]))


def tables(space: SearchSpace) -> st.SearchStrategy[AdditiveCost]:
    """Costs that have nothing to do with MACs: eighths, whose sums are exact in any order."""
    return st.integers(0, 1000).map(
        lambda seed: _table(space, functools.partial(_eighths, np.random.default_rng(seed)))
    )


def uneven(space: SearchSpace) -> AdditiveCost:
    """A cost of figures with many digits, as measured ones are."""
    return _table(space, np.random.default_rng(0).random)


def _eighths(generator: np.random.Generator, count: int) -> FloatArray:
    return generator.integers(0, 60, size=count) / 8


def _table(space: SearchSpace, draw: Callable[[int], FloatArray]) -> AdditiveCost:
    """A cost with a drawn figure for each choice of a part, the same for choices of the same layers."""

    def values(terms: FitnessTerms) -> FloatArray:
        # Two expand ratios with one hidden width are the same block.
        _, same = np.unique(np.vstack(terms)[:, :-1], axis=1, return_inverse=True)
        return draw(int(same.max()) + 1)[same.ravel()]

    return AdditiveCost("energy", shared(space_terms(space).map(values)), unit="mJ")


def shared(parts: Parts[FloatArray]) -> Parts[FloatArray]:
    """The same with one table for all later blocks of a stage, as every additive cost has."""
    blocks = tuple(tuple(slots[min(b, 1)] for b in range(len(slots))) for slots in parts.blocks)
    return dataclasses.replace(parts, blocks=blocks)


def contrary(space: SearchSpace) -> AdditiveCost:
    """A cost that is low where MACs are high: of each part, what its MACs lack to those of its costliest choice."""
    macs = count_cost(space, "macs").parts
    return AdditiveCost("idleness", macs.map(lambda values: values.max() - values), unit="op")


def limited(cost: AdditiveCost, limit: float) -> AdditiveCost:
    """The cost with a limit."""
    return dataclasses.replace(cost, limit=limit)


class Numbers(NamedTuple):
    """How the exact solver numbers what networks choose, from their genes (N, genes).

    ``outputs`` (N, stages) are the output widths of a stage's blocks, ``choices`` (N, stages, slots) the blocks' own.
    """

    outputs: IntArray
    choices: IntArray


def numbers_of(space: SearchSpace, genes: IntArray) -> Numbers:
    """A ratio that a stage's blocks share goes with the output width, ratios of their own go with the kernel."""
    layout, ratios = gene_layout(space), len(space.expands)
    widths, kernels, expands = (genes[:, at] for at in (layout.width, layout.kernel, layout.expand))
    if space.expands_per == "stage":
        return Numbers(widths * ratios + expands[:, :, 0], kernels)
    return Numbers(widths, kernels * ratios + expands)
