import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.networks.learned import drawn_terms
from helpers.networks.strategies import tiny_space

from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.cache.exact.solver import SpaceTooLargeError
from fedpareto.fitness.score import score
from fedpareto.search.ranking.fitting.learning import Learned, scaled
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.search.ranking.measuring.bands import Subnet
from fedpareto.search.ranking.measuring.design import Region
from fedpareto.search.ranking.measuring.measured_sample import Sample
from fedpareto.search.ranking.measuring.rounds import first_subnets, learn_in_rounds
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.genes import encode_all

SPACE = tiny_space()
REGION = Region(SPACE, SPACE.fitness, (200_000, 3_000_000))
TRUTH = dataclasses.replace(
    scaled(SPACE.fitness, 0.03), learned=dataclasses.replace(drawn_terms(SPACE, 3, 0.7), intercept=30.0)
)


def _entries() -> list[Architecture]:
    frontier = exact_frontier(SPACE, SPACE.fitness)
    return [frontier.entry(index).architecture for index in range(0, len(frontier.macs), 8)]


def _architectures(subnets: Sequence[Subnet]) -> list[Architecture]:
    return [subnet.architecture for subnet in subnets]


def _learn(
    told: list[tuple[int, list[Architecture]]],
    listener: ProgressListener = SILENT,
    excluded: Sequence[Architecture] = (),
) -> tuple[Sample, Learned]:
    """Learn from 96 networks that are as accurate as the truth says; ``told`` gets the rounds."""

    def measure(number: int, subnets: Sequence[Subnet]) -> list[Reading]:
        architectures = _architectures(subnets)
        told.append((number, architectures))
        return [Reading(float(value) / 100) for value in score(SPACE, encode_all(SPACE, architectures), TRUTH).fitness]

    first = first_subnets(REGION, _entries(), 96, excluded, np.random.default_rng(0))
    return learn_in_rounds(REGION, first, 96, excluded, SPACE.fitness, measure, 0, listener)


@pytest.mark.slow
def test_rounds_measure_what_searches_find_and_each_network_once() -> None:
    told: list[tuple[int, list[Architecture]]] = []
    sample, learned = _learn(told)
    assert [(number, len(architectures)) for number, architectures in told] == [(0, 72), (1, 8), (2, 8), (3, 8)]
    every = [architecture for _, architectures in told for architecture in architectures]
    assert len(set(every)) == 96
    assert len(sample) == 96
    # What the search finds is as accurate as the fitness says, near what is best in truth.
    budget = 1_000_000
    found, best = (exact_frontier(SPACE, settings) for settings in (learned.settings, TRUTH))
    index, optimum = found.best_within(budget), best.best_within(budget)
    assert index is not None
    assert optimum is not None
    reached = float(score(SPACE, found.genes[[index]], TRUTH).fitness[0])
    assert reached > best.values[optimum] - 0.5
    assert abs(found.values[index] - reached) < 1
    analytic = exact_frontier(SPACE, SPACE.fitness)
    before = analytic.best_within(budget)
    assert before is not None
    assert reached > float(score(SPACE, analytic.genes[[before]], TRUTH).fitness[0])


@pytest.mark.slow
def test_networks_that_judge_are_not_learned_from() -> None:
    judges = _architectures(first_subnets(REGION, _entries(), 96, (), np.random.default_rng(0)))[::4]
    judges += [exact_frontier(SPACE, TRUTH).entry(index).architecture for index in (10, 20, 30)]
    told: list[tuple[int, list[Architecture]]] = []
    _learn(told, excluded=judges)
    assert not set(judges) & {architecture for _, architectures in told for architecture in architectures}


@pytest.mark.slow
def test_the_same_generator_draws_the_same_subnets() -> None:
    once, again, other = (first_subnets(REGION, _entries(), 96, (), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert once == again
    assert once != other


@pytest.mark.slow
def test_a_space_too_large_to_be_searched_is_learned_from_the_first_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise SpaceTooLargeError("too large")

    monkeypatch.setattr("fedpareto.search.ranking.measuring.design.exact_frontier", refuse)
    remarks: list[str] = []
    told: list[tuple[int, list[Architecture]]] = []
    sample, learned = _learn(told, ProgressListener(remark=remarks.append))
    assert [number for number, _ in told] == [0]
    assert len(sample) == 72
    assert learned.settings.learned is not None
    assert remarks == ["too large; what a search finds is not measured, and the fit ends without it"]
