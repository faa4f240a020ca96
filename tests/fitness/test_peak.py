"""Limits on the peak memory of feature maps: a maximum over the network, exactly."""

import dataclasses

import numpy as np
import pytest
from helpers.networks.spaces import SMALL, SMALL_RESNET, listed

from fedpareto.cache.costs.cost import memory_cost, size_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.infeasible import infeasibility_error
from fedpareto.fitness.costs import peak_activation_bytes
from fedpareto.fitness.score import score
from fedpareto.search.query.searcher import search
from fedpareto.supernet.architecture import architecture_from_text
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.genes import encode
from fedpareto.supernet.layer_table import layer_table
from fedpareto.supernet.space import SearchSpace

SPACES = pytest.mark.parametrize("space", [SMALL, SMALL_RESNET], ids=lambda space: space.name)


@SPACES
@pytest.mark.parametrize("batch", [1, 7])
def test_the_memory_of_a_network_is_the_largest_of_its_layers(space: SearchSpace, batch: int) -> None:
    genes = listed(space).genes
    expected = peak_activation_bytes(layer_table(space, genes), batch)
    assert np.array_equal(memory_cost(space, batch).of(space, genes), expected)


@SPACES
def test_the_additive_form_has_the_same_networks_within_its_limit(space: SearchSpace) -> None:
    genes = listed(space).genes
    peaks = memory_cost(space).of(space, genes)
    for limit in np.unique(peaks):
        cost = memory_cost(space, limit=float(limit))
        counted = cost.additive()
        assert np.array_equal(counted.of(space, genes) <= counted.limit, peaks <= limit)


@SPACES
def test_the_answer_is_the_best_of_all_networks_within_the_memory(space: SearchSpace) -> None:
    everything = listed(space)
    peaks = memory_cost(space).of(space, everything.genes)
    for share in (0.02, 0.2, 0.5, 0.9):
        memory = memory_cost(space, limit=float(np.quantile(peaks, share)))
        for params in (None, int(np.quantile(everything.scores.params, 0.4))):
            limits = Limits(params=params, extras=(memory,))
            if not everything.within(limits).any():
                continue
            answer = search(space, space.fitness, limits)
            assert answer.certified
            assert answer.entry.fitness == pytest.approx(everything.best(limits), rel=1e-12)
            assert answer.entry.activation_bytes <= memory.limit


@SPACES
def test_a_memory_no_network_has_names_the_least_there_is(space: SearchSpace) -> None:
    everything = listed(space)
    peaks = memory_cost(space).of(space, everything.genes)
    macs = int(np.quantile(everything.scores.macs[everything.scores.feasible], 0.3))
    within = everything.within(Limits(macs=macs))
    least = int(peaks[within].min())
    memory = memory_cost(space, limit=least - 1)
    message = str(infeasibility_error(space, space.fitness, Limits(macs=macs, extras=(memory,))))
    assert f"the limit on memory binds: the nearest network has {least:,} (" in message
    nearest = encode(space, architecture_from_text(message[message.rindex('{"family"') :], "message"))[None]
    assert memory.of(space, nearest)[0] == least
    assert score(space, nearest).macs[0] <= macs
    with pytest.raises(BudgetError, match="the limit on memory binds"):
        search(space, space.fitness, Limits(extras=(dataclasses.replace(memory, limit=1.0),)))


def test_limits_that_are_all_too_low_are_each_named_with_the_least_there_is() -> None:
    everything = listed(SMALL)
    feasible = everything.scores.feasible
    peak = int(memory_cost(SMALL).of(SMALL, everything.genes)[feasible].min())
    size = int(size_cost(SMALL, "int8").of(SMALL, everything.genes)[feasible].min())
    limits = Limits(extras=(memory_cost(SMALL, limit=peak - 1), size_cost(SMALL, "int8", size - 1)))
    message = str(infeasibility_error(SMALL, SMALL.fitness, limits))
    assert f"nor with one of the limits lifted: the least there is, each by itself, is {peak:,} (" in message
    assert f") memory, {size:,} (" in message
