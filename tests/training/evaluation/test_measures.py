import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.supernet.arrays import IntArray
from fedpareto.training.evaluation.measures import (
    BINS,
    ClientSpread,
    Measures,
    PredictionCounts,
    client_accuracies,
    doubts,
)


def _naming(labels: list[int], named: list[int], classes: int) -> PredictionCounts:
    """Counts of a network that is sure of the classes it names."""
    logits = 8.0 * F.one_hot(torch.tensor(named), classes).float()
    return PredictionCounts.over([(logits, torch.tensor(labels))])


def _random(images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator) * 2
    return logits, torch.randint(classes, (images,), generator=generator)


def test_counts_do_not_depend_on_the_batches_they_came_in() -> None:
    logits, labels = _random(50, 7, seed=0)
    whole = PredictionCounts.over([(logits, labels)])
    slices = [slice(start, start + 8) for start in range(0, 50, 8)]
    parts = PredictionCounts.over((logits[part], labels[part]) for part in slices)
    assert (parts.confusion == whole.confusion).all()
    assert parts.in_top == whole.in_top
    assert parts.loss == pytest.approx(whole.loss)
    assert parts.bins == pytest.approx(whole.bins)


def test_measures_are_those_of_the_definitions_image_by_image() -> None:
    logits, labels = _random(200, 8, seed=1)
    counts = PredictionCounts.over([(logits, labels)])
    measures, named = counts.measures(), logits.argmax(dim=1)
    right = named == labels
    assert counts.images == 200
    assert counts.accuracy == pytest.approx(float(right.float().mean()))
    recalls = [float(right[labels == one].float().mean()) for one in range(8)]
    assert measures.recall == pytest.approx(recalls)
    assert measures.balanced == pytest.approx(sum(recalls) / 8)
    f1 = [
        2 * int((right & (labels == one)).sum()) / int((labels == one).sum() + (named == one).sum()) for one in range(8)
    ]
    assert measures.macro_f1 == pytest.approx(sum(f1) / 8)
    top = [int(label) in row.argsort(descending=True)[:5] for row, label in zip(logits, labels, strict=True)]
    assert measures.top5 == pytest.approx(sum(top) / 200)
    assert measures.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    confidence = logits.softmax(dim=1).amax(dim=1)
    error = 0.0
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            error += float(inside.float().mean() * (right[inside].float().mean() - confidence[inside].mean()).abs())
    assert measures.ece == pytest.approx(error, rel=1e-4)


def test_a_class_without_images_has_no_recall_and_counts_for_nothing() -> None:
    measures = _naming([0, 0, 1, 1], [0, 0, 1, 0], classes=3).measures()
    assert measures.recall == (1.0, 0.5, None)
    assert measures.balanced == 0.75
    assert measures.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert measures.majority == 0.5


def test_a_class_that_is_named_without_having_images_lowers_f1() -> None:
    assert _naming([0, 1], [0, 2], classes=3).measures().macro_f1 == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [2, 5])
def test_top_5_is_told_of_more_than_five_classes_alone(classes: int) -> None:
    assert _naming([0, 1], [0, 0], classes).measures().top5 is None
    assert _naming([0, 1], [0, 0], 6).measures().top5 is not None


def test_a_network_of_nan_has_no_loss_and_no_calibration_error() -> None:
    measures = PredictionCounts.over([(torch.full((4, 3), math.nan), torch.tensor([0, 1, 2, 0]))]).measures()
    assert measures.loss is None
    assert measures.ece is None
    assert measures.named == 1


@given(
    arrays(np.int64, (4, 3), elements=st.integers(0, 30)),
    arrays(np.float64, 3, elements=st.one_of(st.floats(0, 1), st.just(math.nan))),
)
def test_a_clients_accuracy_is_the_mean_recall_over_its_images_of_measured_classes(
    labels: IntArray, recall: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    expected = []
    for row in labels:
        images = [recall[kind] for kind, count in enumerate(row) for _ in range(count) if not np.isnan(recall[kind])]
        if images:
            expected.append(sum(images) / len(images))
    assert client_accuracies(recall, labels).tolist() == pytest.approx(expected)


def test_the_worst_decile_is_the_mean_of_the_tenth_that_fares_worst() -> None:
    spread = ClientSpread.of([0.5] * 18 + [0.1, 0.3])
    assert spread is not None
    assert spread.clients == 20
    assert spread.worst_decile == pytest.approx(0.2)
    assert spread.mean == pytest.approx(0.47)
    assert spread.deviation == pytest.approx(np.std([0.5] * 18 + [0.1, 0.3]))
    few = ClientSpread.of([0.9, 0.4])
    assert few is not None
    assert few.worst_decile == 0.4
    assert ClientSpread.of([]) is None


def _doubts(labels: list[int], named: list[int], classes: int = 3) -> str | None:
    counts = _naming(labels, named, classes)
    return doubts(counts.accuracy, counts.measures())


def test_a_network_that_names_one_class_is_remarked_on() -> None:
    said = _doubts([0] * 87 + [1] * 13, [0] * 100)
    assert said == "it names one class for every image (balanced accuracy 50.0%)"


def test_a_network_no_better_than_the_majority_is_remarked_on() -> None:
    said = _doubts([0] * 87 + [1] * 13, [0] * 86 + [1] + [0] * 12 + [1])
    assert said is not None
    assert "no better than naming the most frequent class, which 87.0% of the images are" in said
    assert "2 classes named" in said


def test_a_network_that_is_better_is_not_remarked_on() -> None:
    assert _doubts([0] * 87 + [1] * 13, [0] * 87 + [1] + [0] * 12) is None


def test_measures_are_plain_json_values() -> None:
    measures = _naming([0, 1], [0, 0], classes=2).measures()
    assert Measures(**dataclasses.asdict(measures)) == measures
