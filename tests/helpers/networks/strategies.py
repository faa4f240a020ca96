"""Search spaces, gene vectors and architectures for hypothesis, and the settings all property tests share."""

import dataclasses
import functools
from typing import Any, get_args

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import decode, gene_layout
from fedpareto.supernet.space import ExpandsPer, HeadSpec, Norm, SearchSpace, StageSpec, StemSpec
from fedpareto.supernet.space_file import load_space
from helpers.examples import drawn

MOBILENETS = ("mobilenet-cifar", "mobilenet-imagenet", "mobilenet-tiny")
PRESETS = (*MOBILENETS, "resnet-cifar")

#: Ratios whose hidden widths collide on narrow inputs: 8·1.25, 8·1.5 and 8·2 are all 16.
EXPANDS = (1.0, 1.25, 1.5, 2.0, 2.1, 2.5, 3.0, 4.0)
#: Ratios of ResNet blocks, whose hidden widths collide on narrow outputs: 40·0.1, 40·0.14 and 40·0.25 are all 8.
RESNET_EXPANDS = (0.1, 0.14, 0.25, 0.5, 1.0, 1.5)
MULTIPLIERS = (0.3, 0.5, 0.6, 0.75, 1.0)


def runs(examples: int, *, shrink: bool = True) -> settings:
    """Settings of a property test of so many examples: the same in every run, and no clock.

    Without ``shrink`` a failure reports the example as it was drawn: for tests that build large networks.
    """
    phases = (Phase.explicit, Phase.generate, Phase.shrink) if shrink else (Phase.explicit, Phase.generate)
    return settings(
        max_examples=drawn(examples),
        deadline=None,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@functools.cache
def preset(name: str) -> SearchSpace:
    return load_space(name)


def tiny_space() -> SearchSpace:
    return preset("mobilenet-tiny")


def narrow_resnet() -> SearchSpace:
    """The resnet-cifar preset with an eighth of the channels of its stages: 1.1 million parameters."""
    space = preset("resnet-cifar")
    stages = tuple(dataclasses.replace(stage, width=stage.width // 8) for stage in space.stages)
    return dataclasses.replace(space, name="narrow", stages=stages)


def gene_vectors(space: SearchSpace) -> st.SearchStrategy[IntArray]:
    """Gene vectors of ``space``, not canonical ones in particular."""
    genes = st.tuples(*(st.integers(0, int(size) - 1) for size in gene_layout(space).sizes))
    return genes.map(lambda values: np.array(values, dtype=np.int64))


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    return gene_vectors(space).map(lambda genes: decode(space, genes))


def _some(values: tuple[float, ...], *, most: int = 3) -> st.SearchStrategy[tuple[float, ...]]:
    chosen = st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)
    return chosen.map(lambda drawn: tuple(sorted(drawn)))


def _some_integers(values: tuple[int, ...], *, most: int = 2) -> st.SearchStrategy[tuple[int, ...]]:
    chosen = st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)
    return chosen.map(lambda drawn: tuple(sorted(drawn)))


_widths = st.sampled_from((8, 16, 24, 32, 40))
_strides = st.sampled_from((1, 2))
_activations = st.sampled_from(("relu", "hswish"))


def user_spaces() -> st.SearchStrategy[SearchSpace]:
    """Small spaces a user might write: narrow, with colliding choices, any norm, with and without a head."""
    return _mobilenet_spaces() | _resnet_spaces()


def _mobilenet_spaces() -> st.SearchStrategy[SearchSpace]:
    return _spaces(
        family=st.just("mobilenet"),
        stages=_stages(se=st.booleans()),
        kernels=_some_integers((1, 3, 5, 7)),
        expands=_some(EXPANDS),
    )


def _resnet_spaces() -> st.SearchStrategy[SearchSpace]:
    return _spaces(
        family=st.just("resnet"), stages=_stages(branch_activation=st.booleans()), expands=_some(RESNET_EXPANDS)
    )


def _stages(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[StageSpec, ...]]:
    stage = st.builds(StageSpec, width=_widths, stride=_strides, activation=_activations, **fields)
    return st.lists(stage, min_size=1, max_size=3).map(tuple)


def _spaces(**of_family: st.SearchStrategy[Any]) -> st.SearchStrategy[SearchSpace]:
    """Spaces of one family: what any family may choose, beside the given strategies of its own fields."""
    return st.builds(
        SearchSpace,
        name=st.just("user"),
        stem=st.builds(
            StemSpec, width=_widths, stride=_strides, activation=_activations, multipliers=_some(MULTIPLIERS)
        ),
        resolutions=_some_integers((8, 9, 12, 16)),
        depths=_some_integers((1, 2, 3)),
        width_multipliers=_some(MULTIPLIERS),
        head=st.none() | st.builds(HeadSpec, conv=_widths, hidden=_widths),
        norm=st.sampled_from(get_args(Norm)),
        expands_per=st.sampled_from(get_args(ExpandsPer)),
        classes=st.integers(2, 11),
        in_channels=st.integers(1, 3),
        **of_family,
    )


def spaces_with_architectures() -> st.SearchStrategy[tuple[SearchSpace, Architecture]]:
    """A user's space and one of its architectures."""
    return user_spaces().flatmap(lambda space: st.tuples(st.just(space), architectures(space)))


def spaces_with_genes() -> st.SearchStrategy[tuple[SearchSpace, IntArray]]:
    """A user's space and one gene vector of it."""
    return user_spaces().flatmap(lambda space: st.tuples(st.just(space), gene_vectors(space)))
