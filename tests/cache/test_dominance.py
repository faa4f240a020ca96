from collections.abc import Iterator

import numpy as np
import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.cache.dominance import non_dominated, pareto_front
from fedpareto.supernet.arrays import FloatArray, IntArray

_points = st.lists(st.tuples(st.integers(1, 12), st.integers(-6, 6)), min_size=1, max_size=30)


@st.composite
def _clouds(draw: st.DrawFn) -> FloatArray:
    """(coordinates, N) points: few values, so that many are equal, or many; scattered, or most on a front."""
    coordinates = draw(st.integers(1, 5))
    count = draw(st.integers(1, 40) | st.sampled_from((255, 256, 257, 700, 1100)))
    values = draw(st.sampled_from((2, 5, 30, 10**6)))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    points = generator.integers(-values, values, size=(coordinates, count)).astype(float)
    if draw(st.booleans()):
        # Near one sum of coordinates most points are on the front: more than one chunk of them stays.
        points[-1] = -points[:-1].sum(axis=0) + generator.integers(0, 2, size=count)
    if draw(st.booleans()):
        points = np.concatenate([points, points[:, generator.permutation(count)[: count // 2]]], axis=1)
    return points


def _slow_front(points: FloatArray) -> set[tuple[float, ...]]:
    """The points that none is at least as good as in all coordinates and better in one."""
    distinct = np.unique(points, axis=1)
    at_least = (distinct[:, :, None] >= distinct[:, None, :]).all(axis=0)
    better = (distinct[:, :, None] > distinct[:, None, :]).any(axis=0)
    return set(_tuples(distinct, np.flatnonzero(~(at_least & better).any(axis=0))))


def _tuples(points: FloatArray, index: IntArray) -> Iterator[tuple[float, ...]]:
    return (tuple(point) for point in points[:, index].T.tolist())


@given(_clouds())
@runs(250)
def test_what_stays_is_what_no_point_dominates_each_once(points: FloatArray) -> None:
    kept = non_dominated(points)
    found = list(_tuples(points, kept))
    assert set(found) == _slow_front(points)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("coordinates", [1, 2, 3, 4, 5])
def test_of_equal_points_one_stays(coordinates: int) -> None:
    assert len(non_dominated(np.ones((coordinates, 600)))) == 1
    assert non_dominated(np.zeros((coordinates, 1))).tolist() == [0]


@pytest.mark.parametrize("coordinates", [2, 3, 4, 5])
def test_a_front_of_several_chunks_stays_whole(coordinates: int) -> None:
    points = np.random.default_rng(0).permutation(1500).astype(float)[None].repeat(coordinates, axis=0)
    points[-1] *= -1
    assert sorted(non_dominated(points).tolist()) == list(range(1500))


@pytest.mark.parametrize("coordinates", [1, 2, 3, 4, 5])
def test_one_point_may_dominate_all_others(coordinates: int) -> None:
    points = np.random.default_rng(0).normal(size=(coordinates, 1000))
    points[:, 777] = 10.0
    assert non_dominated(points).tolist() == [777]


def _columns(points: list[tuple[int, int]]) -> tuple[NDArray[np.int64], FloatArray]:
    return np.array([cost for cost, _ in points]), np.array([float(value) for _, value in points])


@given(_points)
@runs(200)
def test_the_front_holds_every_point_no_other_beats_and_no_twin(points: list[tuple[int, int]]) -> None:
    cost, value = _columns(points)
    beaten = {
        (c, v)
        for c, v in points
        if any(other_c <= c and other_v >= v and (other_c, other_v) != (c, v) for other_c, other_v in points)
    }
    front = [(int(cost[i]), int(value[i])) for i in pareto_front(cost, value)]
    assert front == sorted(set(points) - beaten)


def test_the_front_of_a_known_set() -> None:
    cost, value = _columns([(5, 1), (1, 0), (3, 2), (3, 1), (4, 2), (6, 3)])
    assert pareto_front(cost, value).tolist() == [1, 2, 5]


def test_the_front_of_nothing_is_nothing() -> None:
    assert pareto_front(np.empty(0), np.empty(0)).tolist() == []
