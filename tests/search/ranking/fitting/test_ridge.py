import numpy as np
import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.search.ranking.fitting.ridge import fit_ridge
from fedpareto.supernet.arrays import FloatArray


def _data(seed: int, rows: int = 30) -> tuple[FloatArray, FloatArray, FloatArray]:
    generator = np.random.default_rng(seed)
    free = np.column_stack([np.ones(rows), generator.normal(size=rows)])
    return free, generator.normal(size=(rows, 8)), generator.normal(size=rows)


@given(st.integers(0, 1000), st.sampled_from((0.01, 1.0, 300.0)))
@runs(40)
def test_it_is_least_squares_with_rows_that_pull_the_penalised_columns_to_0(seed: int, strength: float) -> None:
    free, penalised, values = _data(seed)
    found = fit_ridge(free, penalised, values, strength)
    pull = np.column_stack([np.zeros((8, 2)), np.sqrt(strength) * np.eye(8)])
    rows = np.concatenate([np.column_stack([free, penalised]), pull])
    expected = np.linalg.lstsq(rows, np.append(values, np.zeros(8)), rcond=None)[0]
    assert np.concatenate(found).tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    assert found.predict(free, penalised).tolist() == pytest.approx((rows[:30] @ expected).tolist(), abs=1e-9)


def test_more_columns_than_rows_have_one_answer() -> None:
    free, penalised, values = _data(0, rows=6)
    found = fit_ridge(free, np.tile(penalised, (1, 3)), values, 1e-3)
    first, second, third = np.split(found.penalised, 3)
    assert first.tolist() == pytest.approx(second.tolist(), abs=1e-8)
    assert first.tolist() == pytest.approx(third.tolist(), abs=1e-8)


def test_an_infinite_penalty_leaves_the_free_columns() -> None:
    free, penalised, values = _data(3)
    found = fit_ridge(free, penalised, values, 1e12)
    assert np.abs(found.penalised).max() < 1e-9
    assert found.free.tolist() == pytest.approx(np.linalg.lstsq(free, values, rcond=None)[0].tolist())


def test_free_columns_that_depend_on_each_other_are_taken() -> None:
    free, penalised, values = _data(4)
    doubled = np.column_stack([free, free[:, 1]])
    one, two = fit_ridge(free, penalised, values, 1.0), fit_ridge(doubled, penalised, values, 1.0)
    assert two.penalised.tolist() == pytest.approx(one.penalised.tolist())
    assert two.predict(doubled, penalised).tolist() == pytest.approx(one.predict(free, penalised).tolist())
