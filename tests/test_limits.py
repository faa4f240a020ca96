import numpy as np
import pytest
from strategies import tiny_space

from cache.limits import Limits, check_reachable
from fitness.score import score
from supernet.errors import BudgetError
from supernet.genes import largest_genes, random_genes, smallest_genes

_EXTREMES = score(tiny_space(), np.stack([smallest_genes(tiny_space()), largest_genes(tiny_space())]))
LEAST, MOST = (int(value) for value in _EXTREMES.macs)
LEAST_PARAMS = int(_EXTREMES.params[0])


def test_violations_are_relative_and_positive_only_where_a_limit_is_broken() -> None:
    scores = score(tiny_space(), random_genes(tiny_space(), 50, np.random.default_rng(0)))
    limits = Limits(macs=600_000, params=70_000, min_macs=300_000)
    over, params, under = limits.violations(scores)
    assert np.allclose(over, scores.macs / 600_000 - 1)
    assert np.allclose(params, scores.params / 70_000 - 1)
    assert np.allclose(under, 1 - scores.macs / 300_000)
    within = (scores.macs <= 600_000) & (scores.params <= 70_000) & (scores.macs >= 300_000)
    assert np.array_equal((limits.violations(scores) <= 0).all(axis=0), within)
    assert 0 < within.sum() < 50


def test_a_cost_exactly_at_its_limit_is_within_it() -> None:
    scores = score(tiny_space(), smallest_genes(tiny_space()))
    limits = Limits(macs=LEAST, params=LEAST_PARAMS, min_macs=LEAST)
    assert (limits.violations(scores) <= 0).all()
    check_reachable(tiny_space(), limits)


def test_no_limits_have_no_violations() -> None:
    scores = score(tiny_space(), random_genes(tiny_space(), 3, np.random.default_rng(0)))
    assert Limits().violations(scores).shape == (0, 3)
    check_reachable(tiny_space(), Limits())


def test_limits_larger_than_any_network_are_no_limits() -> None:
    scores = score(tiny_space(), largest_genes(tiny_space()))
    limits = Limits(macs=10**20, params=10**20)
    check_reachable(tiny_space(), limits)
    assert (limits.violations(scores) <= 0).all()


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
