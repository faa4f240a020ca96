import dataclasses

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space

from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.cells import cells_chosen
from fedpareto.search.ranking.measuring.bands import Subnet, pools_of
from fedpareto.search.ranking.measuring.design import (
    PARTS,
    Region,
    fittest_subnets,
    informative,
    near_subnets,
    spread_subnets,
)
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.genes import encode, encode_all, gene_layout
from fedpareto.supernet.space import SearchSpace


def _region(space: SearchSpace) -> Region:
    frontier = exact_frontier(space, space.fitness)
    return Region(space, space.fitness, (int(frontier.macs[0]), int(frontier.macs[-1])))


def _architectures(subnets: list[Subnet]) -> list[Architecture]:
    return [subnet.architecture for subnet in subnets]


def _check_within(region: Region, subnets: list[Subnet]) -> None:
    """Check that subnets are distinct, of the region, and numbered by their parts."""
    assert len(set(_architectures(subnets))) == len(subnets)
    scores = score(region.space, encode_all(region.space, _architectures(subnets)), region.settings)
    assert scores.feasible.all()
    for macs, subnet in zip(scores.macs, subnets, strict=True):
        assert region.macs[0] <= macs <= region.macs[1]
        assert region.parts[subnet.band].least <= macs <= region.parts[subnet.band].most


@pytest.mark.slow
def test_spread_subnets_make_every_choice_more_evenly_than_random_ones_and_cover_all_macs() -> None:
    region = _region(tiny_space())
    subnets = spread_subnets(region, 160, (), np.random.default_rng(0))
    _check_within(region, subnets)
    assert np.bincount([subnet.band for subnet in subnets]).tolist() == [20] * PARTS
    pools = pools_of(region.space, region.settings, region.parts, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    drawn = np.concatenate([pool[generator.choice(len(pool), 20, replace=False)] for pool in pools])
    chosen = cells_chosen(region.space, encode_all(region.space, _architectures(subnets)))
    at_random = cells_chosen(region.space, drawn)
    # What is chosen least often, and how much a fit of all choices would be certain of.
    assert chosen.sum(axis=0).min() > at_random.sum(axis=0).min()
    assert _certainty(chosen) > _certainty(at_random) + 5


def _certainty(rows: FloatArray) -> float:
    return float(np.linalg.slogdet(rows.T @ rows + np.eye(rows.shape[1]))[1])


def test_every_choice_raises_the_determinant_most_of_its_group() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6))
    groups = np.arange(40) % 3
    chosen = informative(rows, groups, 9)
    assert [groups[index] for index in chosen] == [0, 1, 2] * 3
    for place, index in enumerate(chosen):
        before = chosen[:place]
        free = [other for other in range(40) if groups[other] == groups[index] and other not in before]
        assert index == max(free, key=lambda other: _certainty(rows[[*before, other]]))


def test_a_group_that_is_used_up_leaves_its_turns_to_the_others() -> None:
    chosen = informative(np.random.default_rng(0).normal(size=(10, 3)), np.array([0] * 8 + [1] * 2), 9)
    assert len(set(chosen)) == 9
    assert {8, 9} <= set(chosen)


def test_near_subnets_differ_from_an_entry_in_few_choices() -> None:
    region = _region(tiny_space())
    frontier = exact_frontier(region.space, region.settings)
    entries = [frontier.entry(index).architecture for index in range(0, len(frontier.macs), 5)]
    subnets = near_subnets(region, entries, 40, (), np.random.default_rng(0))
    _check_within(region, subnets)
    genes, layout = encode_all(region.space, entries), gene_layout(region.space)
    for subnet in subnets:
        vector = encode(region.space, subnet.architecture)
        differ = genes != vector
        # Blocks that only one of both has come with its depth.
        shared = np.minimum(genes[:, layout.depth], vector[layout.depth])
        for slot in range(region.space.max_depth):
            absent = np.asarray(region.space.depths)[shared] <= slot
            differ[:, layout.kernel[:, slot]] &= ~absent
            differ[:, layout.expand[:, slot]] &= ~absent
        assert differ.sum(axis=1).min() <= 3
    assert len(set(_architectures(subnets)) - set(entries)) > 20


@pytest.mark.slow
def test_the_fittest_subnets_are_of_the_frontier_of_the_fitness_they_are_asked_for() -> None:
    region = _region(tiny_space())
    settings = dataclasses.replace(region.settings, block_penalty=30.0)
    subnets = fittest_subnets(region, settings, 10, ())
    _check_within(region, subnets)
    frontier = exact_frontier(region.space, settings)
    scores = score(region.space, encode_all(region.space, _architectures(subnets)), settings)
    assert len(subnets) == 10
    for macs, fitness in zip(scores.macs, scores.fitness, strict=True):
        index = frontier.best_within(int(macs))
        assert index is not None
        assert frontier.values[index] == fitness
    others = fittest_subnets(region, settings, 10, _architectures(subnets))
    assert not set(_architectures(others)) & set(_architectures(subnets))


@pytest.mark.slow
def test_subnets_that_are_excluded_are_not_drawn() -> None:
    region = _region(tiny_space())
    once = _architectures(spread_subnets(region, 24, (), np.random.default_rng(0)))
    again = _architectures(spread_subnets(region, 24, once, np.random.default_rng(0)))
    assert not set(once) & set(again)


@pytest.mark.slow
def test_too_few_networks_are_refused_with_what_helps() -> None:
    region = dataclasses.replace(_region(tiny_space()), macs=(1, 2))
    with pytest.raises(UserError, match=r"0 random networks of mobilenet-tiny .* not 24; ask for fewer --fit-subnets"):
        spread_subnets(region, 24, (), np.random.default_rng(0))
