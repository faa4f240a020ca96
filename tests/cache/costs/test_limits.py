import dataclasses

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space
from numpy.typing import NDArray

from fedpareto.cache.costs.cost import count_cost
from fedpareto.cache.costs.limits import Limits, check_reachable
from fedpareto.fitness.score import score
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.genes import largest_genes, random_genes, smallest_genes

_EXTREMES = score(tiny_space(), np.stack([smallest_genes(tiny_space()), largest_genes(tiny_space())]))
LEAST, MOST = (int(value) for value in _EXTREMES.macs)
LEAST_PARAMS = int(_EXTREMES.params[0])


def _violations(limits: Limits, genes: IntArray) -> NDArray[np.float64]:
    return limits.violations(tiny_space(), genes, score(tiny_space(), genes))


def test_violations_are_relative_and_positive_only_where_a_limit_is_broken() -> None:
    genes = random_genes(tiny_space(), 50, np.random.default_rng(0))
    scores = score(tiny_space(), genes)
    limits = Limits(macs=600_000, params=70_000, min_macs=300_000)
    over, params, under = _violations(limits, genes)
    assert np.allclose(over, scores.macs / 600_000 - 1)
    assert np.allclose(params, scores.params / 70_000 - 1)
    assert np.allclose(under, 1 - scores.macs / 300_000)
    within = (scores.macs <= 600_000) & (scores.params <= 70_000) & (scores.macs >= 300_000)
    assert np.array_equal((_violations(limits, genes) <= 0).all(axis=0), within)
    assert 0 < within.sum() < 50


def test_another_additive_cost_is_a_limit_like_those_counted() -> None:
    genes = random_genes(tiny_space(), 50, np.random.default_rng(0))
    params = score(tiny_space(), genes).params
    limits = Limits(macs=600_000, extras=(count_cost(tiny_space(), "params", 70_000),))
    assert limits.count == 2
    assert np.allclose(_violations(limits, genes)[1], params / 70_000 - 1)
    assert np.array_equal(_violations(limits, genes)[1] <= 0, params <= 70_000)
    assert [cost.limit for cost in limits.additive(tiny_space())] == [600_000, 70_000]


def test_limits_are_told_as_people_say_them() -> None:
    latency = dataclasses.replace(count_cost(tiny_space(), "macs"), name="latency", limit=5.0, unit="ms")
    limits = Limits(macs=60_000_000, params=2_000_000, min_macs=1000, extras=(latency,))
    words = "at most 60M MACs and at most 2M parameters and at least 1K MACs and at most 5 ms latency"
    assert limits.words() == words
    assert Limits().words() == "any costs"


def test_a_cost_exactly_at_its_limit_is_within_it() -> None:
    params = count_cost(tiny_space(), "params", LEAST_PARAMS)
    limits = Limits(macs=LEAST, params=LEAST_PARAMS, min_macs=LEAST, extras=(params,))
    assert (_violations(limits, smallest_genes(tiny_space())[None]) <= 0).all()
    check_reachable(tiny_space(), limits)


def test_no_limits_have_no_violations() -> None:
    genes = random_genes(tiny_space(), 3, np.random.default_rng(0))
    assert _violations(Limits(), genes).shape == (0, 3)
    check_reachable(tiny_space(), Limits())


def test_limits_larger_than_any_network_are_no_limits() -> None:
    limits = Limits(macs=10**20, params=10**20)
    check_reachable(tiny_space(), limits)
    assert (_violations(limits, largest_genes(tiny_space())[None]) <= 0).all()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(macs=LEAST - 1), ["at most", f"{LEAST - 1:,} MACs", f"the smallest has {LEAST:,}"]),
        (Limits(params=LEAST_PARAMS - 1), ["at most", "parameters", f"the smallest has {LEAST_PARAMS:,}"]),
        (Limits(min_macs=MOST + 1), ["at least", f"{MOST + 1:,} MACs", f"the largest has {MOST:,}"]),
        (Limits(macs=LEAST + 1, min_macs=LEAST + 2), [f"{LEAST + 2:,}", f"{LEAST + 1:,}", "swap"]),
    ],
)
def test_an_unreachable_limit_names_itself_and_what_the_space_has(limits: Limits, words: list[str]) -> None:
    with pytest.raises(BudgetError) as caught:
        check_reachable(tiny_space(), limits)
    assert all(word in str(caught.value) for word in words)


def test_every_extreme_is_reachable() -> None:
    check_reachable(tiny_space(), Limits(macs=MOST, min_macs=MOST))
