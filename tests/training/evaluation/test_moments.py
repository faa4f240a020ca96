"""Moments: what sums over batches say of all images, and which sums no images can have."""

from collections.abc import Sequence

import pytest
import torch
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.training.evaluation.moments import impossible, mean_and_variance, moments_of, norms_of
from fedpareto.training.messages import Statistics


def _summed(batches: Sequence[Tensor], norm: str = "a.norm") -> Statistics:
    """Return the statistics of batches of values (images, channels)."""
    moments = [(batch.mean(0), batch.var(0, correction=0), batch.mean(0).square()) for batch in batches]
    sums = [
        sum((len(batch) * own[kind] for batch, own in zip(batches, moments, strict=True)), torch.zeros(3).double())
        for kind in range(3)
    ]
    images = sum(len(batch) for batch in batches)
    return Statistics(dict(zip(moments_of(norm), sums, strict=True)), len(batches), images)


def _batches(sizes: Sequence[int], spread: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        spread * torch.randn(3, generator=generator).double() + torch.randn(size, 3, generator=generator).double()
        for size in sizes
    ]


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    spread=st.sampled_from((0.0, 0.1, 10.0, 1e4)),
    seed=st.integers(0, 1000),
)
@runs(200)
def test_mean_and_variance_are_those_of_all_images_however_they_lie_in_batches(
    sizes: list[int], spread: float, seed: int
) -> None:
    batches = _batches(sizes, spread, seed)
    statistics = _summed(batches)
    variance, mean = torch.var_mean(torch.cat(batches), dim=0, correction=0)
    got_mean, got_variance = mean_and_variance(statistics, "a.norm")
    torch.testing.assert_close(got_mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got_variance, variance, rtol=1e-6, atol=1e-6)
    assert (got_variance >= 0).all()
    assert impossible(statistics) is None


def test_norms_are_known_by_their_sums() -> None:
    batches = _batches([2, 3], 1.0, 0)
    both = {**_summed(batches, "a.norm").sums, **_summed(batches, "b.0.norm").sums}
    assert norms_of(Statistics(both, 2, 5)) == ["a.norm", "b.0.norm"]
    assert norms_of(Statistics({}, 0, 0)) == []


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (0, lambda sums: sums * float("nan"), "NaN or infinity"),
        (0, lambda sums: sums + 1e41, "NaN or infinity"),
        (1, lambda sums: -sums, "negative variances"),
        (1, lambda sums: sums + 1e300, "NaN or infinity"),
        (1, lambda sums: sums * float("inf"), "NaN or infinity"),
        (2, lambda sums: sums * 0.01, "squared means below"),
        (2, lambda sums: -sums, "squared means below"),
        (2, lambda sums: sums + 1e300, "NaN or infinity"),
        (0, lambda sums: sums * 1e3, "squared means below"),
    ],
)
def test_sums_that_no_images_can_have_are_told_apart(kind: int, change: object, message: str) -> None:
    statistics = _summed(_batches([4, 6, 2], 1.0, 3))
    name = moments_of("a.norm")[kind]
    assert callable(change)
    sums = {**statistics.sums, name: change(statistics.sums[name])}
    problem = impossible(Statistics(sums, statistics.batches, statistics.images))
    assert problem is not None
    assert message in problem
