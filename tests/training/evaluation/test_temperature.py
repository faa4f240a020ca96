import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.evaluation.temperature import LEAST, MOST, fit_temperature


def _honest(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn with the probabilities that they say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 5, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_logits_that_are_too_sure_by_a_factor_have_it_as_their_temperature(factor: float, seed: int) -> None:
    logits, labels = _honest(4000, seed)
    assert fit_temperature(factor * logits, labels).value == pytest.approx(factor, rel=0.15)


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = _honest(300, seed=3)
    value = fit_temperature(5 * logits, labels).value
    best = F.cross_entropy(5 * logits / value, labels)
    for other in (0.5, 0.9, 1.1, 2.0):
        assert F.cross_entropy(5 * logits / (value * other), labels) > best


def test_the_calibration_error_falls() -> None:
    logits, labels = _honest(2000, seed=1)
    found = fit_temperature(4 * logits, labels)
    assert found.error_before > 0.1
    assert found.error_after < 0.05


def test_a_network_without_errors_has_the_least_temperature_and_one_of_chance_the_most() -> None:
    labels = torch.arange(5).repeat(20)
    right = F.one_hot(labels, 5).double()
    # From there on a lower one gains nothing that float64 could hold.
    assert LEAST <= fit_temperature(right, labels).value < 0.03
    assert fit_temperature(-right, labels).value == pytest.approx(MOST, rel=0.01)


def test_logits_that_are_not_finite_have_no_temperature() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(torch.tensor([[math.inf, 0.0]]), torch.tensor([0]))
