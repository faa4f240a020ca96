from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedpareto.training.data import digits
from fedpareto.training.data.digits import read_digits


def test_they_are_those_of_the_packages_own_loader() -> None:
    pictures, labels = read_digits()
    expected = load_digits()
    assert np.array_equal(pictures, expected.images)
    assert np.array_equal(labels, expected.target)
    assert pictures.shape == (1797, 8, 8)
    assert labels.dtype == np.int64


def test_a_package_that_keeps_the_file_elsewhere_is_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ModuleSpec("sklearn", None, is_package=True)
    monkeypatch.setattr(digits, "find_spec", lambda name: empty)
    pictures, labels = read_digits()
    assert np.array_equal(pictures, load_digits().images)
    assert np.array_equal(labels, load_digits().target)
