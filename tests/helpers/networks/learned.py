"""Learned terms that are made up, and what they add to a network, computed plainly."""

import numpy as np
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.learned import LearnedTerms
from fedpareto.supernet.space import SearchSpace
from helpers.networks.reference import round8


def drawn_terms(space: SearchSpace, seed: int = 0, scale: float = 1.0) -> LearnedTerms:
    """Terms of a space, each a normal draw times ``scale``."""
    generator = np.random.default_rng(seed)

    def some(count: int) -> tuple[float, ...]:
        return tuple((scale * generator.normal(size=count)).tolist())

    stages = range(len(space.stages))
    return LearnedTerms(
        space=space.choices_digest,
        intercept=some(1)[0],
        resolutions=some(len(space.resolutions)),
        stem=some(len(space.stem_choices)),
        widths=tuple(some(len(space.width_choices[s])) for s in stages),
        depths=tuple(some(len(space.depths)) for _ in stages),
        blocks=tuple(
            tuple(tuple(some(len(space.expands)) for _ in space.kernels) for _ in range(space.max_depth))
            for _ in stages
        ),
    )


def learned_terms(space: SearchSpace) -> st.SearchStrategy[LearnedTerms]:
    """Terms of either sign, small ones and large ones."""
    return st.builds(
        lambda seed, scale: drawn_terms(space, seed, scale), st.integers(0, 1000), st.sampled_from((0.1, 3.0, 100.0))
    )


def plain_sum(space: SearchSpace, architecture: Architecture, terms: LearnedTerms) -> float:
    """What terms add to an architecture, choice by choice."""
    total = terms.intercept + terms.resolutions[space.resolutions.index(architecture.resolution)]
    total += terms.stem[list(space.stem_choices).index(architecture.stem_width)]
    before = architecture.stem_width
    for s, stage in enumerate(architecture.stages):
        total += terms.widths[s][list(space.width_choices[s]).index(stage.width)]
        total += terms.depths[s][space.depths.index(len(stage.blocks))]
        for b, block in enumerate(stage.blocks):
            hidden = [_hidden(space, before, stage.width, ratio) for ratio in space.expands]
            # Ratios that make the same block count as the least of them.
            least = hidden.index(hidden[space.expands.index(block.expand)])
            total += terms.blocks[s][b][space.kernels.index(block.kernel)][least]
            before = stage.width
    return total


def _hidden(space: SearchSpace, c_in: int, c_out: int, ratio: float) -> tuple[int, bool]:
    """The hidden channels of a block, and whether it has a layer that widens to them."""
    if space.family == "resnet":
        return round8(c_out * ratio), True
    return round8(round(c_in * ratio)), ratio != 1


def most(terms: LearnedTerms) -> float:
    """A bound on the size of what terms add to any network, and of what is added on the way."""
    rows = [terms.resolutions, terms.stem, *terms.widths]
    rows += [row for slots in terms.blocks for kernels in slots for row in kernels]
    # The depths of a stage are added as differences.
    depths = [2 * sum(map(abs, row)) for row in terms.depths]
    return abs(terms.intercept) + sum(max(map(abs, row)) for row in rows) + sum(depths)
