from collections import Counter

import pytest
import torch

from fedpareto.training.data.images import DataError, ImageSet
from fedpareto.training.data.split import validation_split


def _labelled(*counts: int) -> ImageSet:
    """Images whose classes have the given sizes, mixed."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return ImageSet(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), labels, tuple("abcdef"[: len(counts)]))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_split_is_disjoint_and_complete() -> None:
    training, validation = validation_split(_labelled(50, 30, 20), 0.2, _generator())
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(100))


def test_every_class_gives_the_same_share() -> None:
    data = _labelled(50, 30, 20)
    _, validation = validation_split(data, 0.2, _generator())
    assert Counter(data.labels[validation].tolist()) == {0: 10, 1: 6, 2: 4}


def test_a_small_class_gives_at_least_one_image() -> None:
    data = _labelled(200, 3)
    training, validation = validation_split(data, 0.01, _generator())
    assert Counter(data.labels[validation].tolist()) == {0: 2, 1: 1}
    assert Counter(data.labels[training].tolist()) == {0: 198, 1: 2}


def test_the_generator_decides_which_images_are_held_out() -> None:
    data = _labelled(50, 50)
    first, again, other = (validation_split(data, 0.2, _generator(seed))[1].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_0_and_1_is_an_error_that_names_the_option(share: float) -> None:
    with pytest.raises(DataError, match=r"data\.validation is .* between 0 and 1"):
        validation_split(_labelled(10, 10), share, _generator())


def test_a_class_of_one_image_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="class 'b' has 1 training image;"):
        validation_split(_labelled(10, 1), 0.1, _generator())


def test_a_share_that_leaves_a_class_no_training_image_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"data\.validation is 0\.9, which leaves class 'b' no training image"):
        validation_split(_labelled(20, 2), 0.9, _generator())
