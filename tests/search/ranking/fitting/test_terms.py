import dataclasses

import numpy as np
import pytest
from helpers.networks.strategies import preset, runs, user_spaces
from helpers.runs.rankings import PLANTED
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.terms import derivatives, settings_with, terms_of, values, weights_of
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.space import SearchSpace

_weight = st.floats(-3, 3)


@given(user_spaces(), st.data())
@runs(80)
def test_weights_and_terms_make_up_the_fitness(space: SearchSpace, data: st.DataObject) -> None:
    settings = FitnessSettings(
        entropy_weights=tuple(data.draw(st.lists(_weight, min_size=len(space.stages), max_size=len(space.stages)))),
        kind_weights=(data.draw(_weight), data.draw(_weight), data.draw(_weight)),
        depth_penalty=data.draw(_weight),
        effectiveness_weight=data.draw(_weight),
        width_penalty=data.draw(_weight),
        block_penalty=data.draw(_weight),
    )
    genes = random_genes(space, 20, np.random.default_rng(0))
    found = values(terms_of(space, genes), weights_of(space, settings))
    assert found == pytest.approx(score(space, genes, settings).fitness, rel=1e-9, abs=1e-6)


def test_derivatives_are_what_a_small_change_of_a_weight_gains() -> None:
    space = preset("mobilenet-cifar")
    terms = terms_of(space, random_genes(space, 10, np.random.default_rng(0)))
    weights = weights_of(space, PLANTED)
    found = derivatives(terms, weights)
    assert found.shape == (5 + 3 + 4, 10)
    for index in range(len(weights.flat)):
        step = np.zeros(len(weights.flat))
        step[index] = 1e-3
        ends = [values(terms, weights.like(weights.flat + sign * step)) for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(found[index], rel=1e-6, abs=1e-6)


def test_weights_are_written_in_five_digits_and_the_rest_is_kept() -> None:
    space = preset("resnet-cifar")
    weights = weights_of(space, space.fitness)
    assert [len(part) for part in weights] == [4, 3, 4]
    moved = settings_with(space.fitness, weights.like(weights.flat + 1 / 3))
    assert moved.entropy_weights == (1.3333,) * 4
    assert moved.kind_weights == (1.3333,) * 3
    assert (moved.effectiveness_weight, moved.block_penalty) == (1000.3, 0.33333)
    kept = dataclasses.replace(moved, max_effectiveness=0.1, cache_max_effectiveness=None)
    assert kept != moved
    assert moved.max_effectiveness == space.fitness.max_effectiveness
    assert moved.cache_max_effectiveness == space.fitness.cache_max_effectiveness
