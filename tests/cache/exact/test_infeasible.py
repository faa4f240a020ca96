import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.networks.exhaustive import Case, cases, contrary, limited, quantile, tables
from helpers.networks.strategies import runs, tiny_space
from hypothesis import assume, given
from hypothesis import strategies as st

from fedpareto.cache.costs.cost import COST_NAMES, AdditiveCost, count_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.infeasible import infeasibility_error
from fedpareto.cache.exact.solver import SpaceTooLargeError, solve_front
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, smallest_genes

SPACE = tiny_space()


def _words(case: Case, limits: Limits) -> str:
    message = str(infeasibility_error(case.space, case.weights, limits))
    assert "\n" not in message
    return message


def _networks(case: Case) -> dict[str, int]:
    """Every network by how messages name it, with one of its gene vectors."""
    return {str(decode(case.space, genes)): index for index, genes in enumerate(case.genes)}


def _needed(case: Case, costs: Sequence[AdditiveCost]) -> list[float]:
    """Of each cost the least of any feasible network that meets the limits of the others, ∞ where none does."""
    paid = [cost.of(case.space, case.genes) for cost in costs]
    least = []
    for number in range(len(costs)):
        others = [row <= c.limit for n, (row, c) in enumerate(zip(paid, costs, strict=True)) if n != number]
        met = np.all([case.scores.feasible, *others], axis=0)
        least.append(float(paid[number][met].min(initial=math.inf)))
    return least


def _check_named(case: Case, limits: Limits) -> None:
    """Check a refusal's binding limit and nearest network against every network there is."""
    costs = limits.additive(case.space)
    needed = _needed(case, costs)
    message = _words(case, limits)
    assert message.startswith(f"no network of {case.space.name} has ")
    assert limits.words() in message
    shares = [value / cost.limit for value, cost in zip(needed, costs, strict=True)]
    if min(shares) == math.inf:
        assert "bind" not in message
        return
    match = re.fullmatch(
        r"(?P<asked>.*); the limit on (?P<name>\w+) binds: the nearest network has (?P<amount>.*)", message
    )
    assert match is not None
    names = [COST_NAMES.get(cost.name, cost.name) for cost in costs]
    number = names.index(match["name"])
    assert shares[number] == pytest.approx(min(shares), rel=1e-12)
    cost, networks = costs[number], _networks(case)
    (index,) = {index for name, index in networks.items() if match["amount"].endswith(name)}
    genes = case.genes[[index]]
    # The network needs no more than it must of that cost, and is within all other limits.
    assert cost.of(case.space, genes)[0] == needed[number]
    assert score(case.space, genes, case.weights).feasible.all()
    for other in costs:
        assert other is cost or other.of(case.space, genes)[0] <= other.limit
    amount = f"{int(needed[number]):,} (" if cost.name in COST_NAMES else f"{needed[number]:.6g} {cost.unit}, "
    assert match["amount"].startswith(amount)


@pytest.mark.slow
@given(cases(networks=1500), st.data())
@runs(60)
def test_where_effectiveness_and_macs_exclude_each_other_macs_bind(case: Case, data: st.DataObject) -> None:
    # Cheap networks are narrow, and narrow ones have a high ρ.
    feasible = case.scores.feasible
    assume(feasible.any())
    least, smallest = int(case.scores.macs[feasible].min()), int(case.scores.macs.min())
    assume(least > smallest)
    budget = data.draw(st.integers(smallest, least - 1))
    _check_named(case, Limits(macs=budget))


@pytest.mark.slow
@given(cases(networks=1500), st.data())
@runs(60)
def test_of_macs_and_parameters_the_one_to_raise_least_binds(case: Case, data: st.DataObject) -> None:
    macs, params, feasible = case.scores.macs, case.scores.params, case.scores.feasible
    limits = Limits(macs=int(data.draw(quantile(macs))), params=int(data.draw(quantile(params))))
    assume(not (feasible & (macs <= (limits.macs or 0)) & (params <= (limits.params or 0))).any())
    _check_named(case, limits)


@pytest.mark.slow
@given(cases(networks=1500), st.data())
@runs(80)
def test_limits_reachable_alone_but_not_together(case: Case, data: st.DataObject) -> None:
    cost = data.draw(st.just(contrary(case.space)) | tables(case.space))
    paid = cost.of(case.space, case.genes)
    limit = data.draw(quantile(paid))
    assume(limit > 0)
    macs = int(data.draw(quantile(case.scores.macs)))
    assume(not (case.scores.feasible & (case.scores.macs <= macs) & (paid <= limit)).any())
    _check_named(case, Limits(macs=macs, extras=(limited(cost, limit),)))


def test_a_limit_below_the_smallest_network_is_answered_with_that() -> None:
    least = int(score(SPACE, smallest_genes(SPACE)).macs[0])
    message = str(infeasibility_error(SPACE, SPACE.fitness, Limits(macs=least - 1)))
    assert message == (
        f"no network of mobilenet-tiny has at most {least - 1:,} MACs; the smallest has {least:,} ({least / 1000:.4g}K)"
    )


def test_an_effectiveness_that_no_network_has_is_named_whatever_the_costs() -> None:
    weights = dataclasses.replace(SPACE.fitness, max_effectiveness=1e-3)
    for limits in (Limits(macs=10**9), Limits(macs=10**9, params=10**9), Limits()):
        message = str(infeasibility_error(SPACE, weights, limits))
        assert message == (
            f"no network of mobilenet-tiny has {limits.words()} and effectiveness ρ ≤ 0.001, whatever its costs; "
            "raise max_effectiveness in a fitness.yaml"
        )


def test_where_no_single_limit_binds_the_smallest_network_is_named() -> None:
    # Three costs that exclude each other two by two: to lift any one of the limits does not help.
    idleness = contrary(SPACE)
    low = float(idleness.of(SPACE, smallest_genes(SPACE)[None])[0])
    smallest = score(SPACE, smallest_genes(SPACE))
    limits = Limits(
        macs=int(smallest.macs[0]),
        params=int(smallest.params[0]),
        extras=(limited(idleness, low / 2), limited(dataclasses.replace(idleness, name="rest"), low / 2)),
    )
    message = str(infeasibility_error(SPACE, dataclasses.replace(SPACE.fitness, max_effectiveness=100.0), limits))
    assert limits.words() in message
    named = decode(SPACE, smallest_genes(SPACE))
    assert "nor with one of the limits lifted: the least there is, each by itself, is " in message
    assert message.endswith(f"; the smallest network is {named}")
    assert isinstance(named, Architecture)


def test_the_nearest_network_is_the_answer_to_the_limit_raised_to_it() -> None:
    weights = dataclasses.replace(SPACE.fitness, max_effectiveness=0.6)
    cheapest = solve_front(SPACE, weights, [count_cost(SPACE, "macs")])[:1]
    macs = int(score(SPACE, cheapest).macs[0])
    message = str(infeasibility_error(SPACE, weights, Limits(macs=macs - 1)))
    assert f"MACs binds: the nearest network has {macs:,} (" in message
    assert len(solve_front(SPACE, weights, [count_cost(SPACE, "macs", macs)])) == 1
    assert len(solve_front(SPACE, weights, [count_cost(SPACE, "macs", macs - 1)])) == 0
    assert not isinstance(infeasibility_error(SPACE, weights, Limits(macs=macs - 1)), SpaceTooLargeError)
