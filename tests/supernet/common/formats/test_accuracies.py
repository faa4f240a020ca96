import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedpareto.supernet.common.formats.accuracies import format_accuracy, wilson_interval


@given(st.integers(1, 5000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    right, images = counts
    expected = binomtest(right, images).proportion_ci(0.95, "wilson")
    low, high = wilson_interval(right / images, images)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= right / images <= high <= 1


def test_few_images_look_like_few() -> None:
    assert format_accuracy(38 / 44, 44) == "86.4% (73.3–93.6)"
    assert format_accuracy(4320 / 5000, 5000) == "86.4% (85.4–87.3)"
    assert format_accuracy(1.0, 3, digits=2) == "100.00% (43.85–100.00)"


def test_an_accuracy_on_an_unknown_number_of_images_has_no_interval() -> None:
    assert format_accuracy(0.5, None) == "50.0%"


@pytest.mark.parametrize(("accuracy", "images"), [(0.5, 0), (1.5, 10), (-0.1, 10)])
def test_what_is_no_share_of_images_has_no_interval(accuracy: float, images: int) -> None:
    with pytest.raises(ValueError, match="an accuracy of"):
        wilson_interval(accuracy, images)
