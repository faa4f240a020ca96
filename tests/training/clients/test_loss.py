"""The loss of local training: cross-entropy on logits adjusted by the client's class counts."""

import itertools
import math
from typing import Any

import pytest
import torch
from helpers.runs.federation import micro_recipe, random_images
from helpers.runs.simulation import micro_task, train_client
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.training.clients.loss import ClientLoss, class_weights, logit_shift
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.data.images import ImageSet

_CPU = torch.device("cpu")

#: Of the classifier.
_BIAS = "head.classifier.linear.bias"


def _loss(classes: int, **client: Any) -> ClientLoss:
    return ClientLoss(ClientConfig(**client), classes, _CPU)


def _direct(logits: Tensor, labels: list[int], counts: list[int], adjustment: float) -> float:
    """Return the mean of −ln(w_y·e^{z_y} / Σ w_c·e^{z_c}) with w_c = π_c^τ, in plain Python."""
    total = sum(counts) + len(counts)
    weights = [((count + 1) / total) ** adjustment for count in counts]
    losses = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        terms = [weight * math.exp(logit) for weight, logit in zip(weights, row, strict=True)]
        losses.append(-math.log(terms[label] / sum(terms)))
    return sum(losses) / len(losses)


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any),
    adjustment=st.floats(0.1, 2.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_loss_is_that_of_a_softmax_weighted_by_the_clients_class_shares(
    counts: list[int], adjustment: float, seed: int
) -> None:
    loss = _loss(len(counts), logit_adjustment=adjustment)
    loss.begin(torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)))
    logits = torch.randn(5, len(counts), generator=torch.Generator().manual_seed(seed))
    labels = [row % len(counts) for row in range(5)]
    expected = _direct(logits, labels, counts, adjustment)
    assert loss(logits, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_without_an_adjustment_it_is_cross_entropy_to_the_byte() -> None:
    loss, logits, labels = _loss(4), torch.randn(6, 4), torch.arange(6) % 4
    loss.begin(torch.zeros(9, dtype=torch.int64))
    assert torch.equal(loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_where_all_classes_are_equally_frequent_nothing_is_adjusted() -> None:
    shift = logit_shift(torch.arange(12) % 4, 4, 1.0)
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    plain, adjusted = (torch.nn.functional.cross_entropy(values, labels) for values in (logits, logits + shift))
    torch.testing.assert_close(adjusted, plain)


def test_the_next_client_has_its_own_adjustment_in_the_same_memory() -> None:
    loss, logits, labels = _loss(3, logit_adjustment=1.0), torch.zeros(1, 3), torch.tensor([0])
    for frequent in (0, 1):
        loss.begin(torch.full((30,), frequent))
        # Of a class that the client has much of little is to be learned.
        expected = math.log(33 / (31 if frequent == 0 else 1))
        assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_soft_labels_and_smoothing_go_with_an_adjustment() -> None:
    loss = _loss(3, logit_adjustment=1.0, label_smoothing=0.3)
    labels = torch.tensor([0, 0, 0, 2])
    loss.begin(labels)
    logits, target = torch.randn(1, 3), torch.tensor([[0.25, 0.0, 0.75]])
    logs = torch.log_softmax(logits + logit_shift(labels, 3, 1.0), dim=1)
    smoothed = 0.7 * target + 0.1
    assert loss(logits, target).item() == pytest.approx(-(smoothed * logs).sum().item(), rel=1e-5)


def test_a_client_of_one_class_moves_less_with_an_adjustment() -> None:
    data = random_images(16)
    single = ImageSet(data.images, torch.zeros_like(data.labels), data.classes)

    def moved(adjustment: float) -> float:
        task = micro_task()
        before = {name: tensor.clone() for name, tensor in task.tensors.items()}
        update = train_client(task, single, micro_recipe(logit_adjustment=adjustment))
        return float((update.tensors[_BIAS] - before[_BIAS]).norm())

    assert moved(1.0) < 0.5 * moved(0.0)


def _counts() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 200), min_size=2, max_size=8).filter(any)


@given(_counts(), st.floats(0, 1))
def test_weights_are_one_on_average_over_the_images_and_fall_with_the_number_of_a_class(
    counts: list[int], beta: float
) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    weights = class_weights(labels, len(counts), beta)
    assert weights[labels].mean().item() == pytest.approx(1, rel=1e-4)
    known = sorted((count, weights[kind].item()) for kind, count in enumerate(counts) if count)
    for (fewer, more_weight), (more, less_weight) in itertools.pairwise(known):
        assert more_weight >= less_weight * (1 - 1e-5) or fewer == more
    assert all(weights[kind] == 0 for kind, count in enumerate(counts) if not count)


@given(_counts())
def test_by_inverse_frequency_all_classes_weigh_the_same(counts: list[int]) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    weights = class_weights(labels, len(counts), 1.0)
    total = sum(counts) / sum(map(bool, counts))
    assert [count * weights[kind].item() for kind, count in enumerate(counts) if count] == pytest.approx(
        [total] * sum(map(bool, counts)), rel=1e-4
    )


def test_effective_numbers_are_those_of_their_formula_and_lie_between_none_and_inverse_frequency() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    weights = class_weights(labels, 2, 0.9)
    expected = (1 - 0.9**90) / (1 - 0.9**10)
    assert (weights[1] / weights[0]).item() == pytest.approx(expected, rel=1e-5)
    none, inverse = class_weights(labels, 2, 0.0), class_weights(labels, 2, 1.0)
    assert none.tolist() == [1, 1]
    assert (inverse[1] / inverse[0]).item() == pytest.approx(9)


def test_a_weighted_loss_is_the_mean_over_images_of_their_losses_times_weights() -> None:
    loss = _loss(3, imbalance="inverse-frequency")
    labels = torch.tensor([0, 0, 0, 2])
    loss.begin(labels)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each * torch.tensor([4 / 6, 4 / 6, 4 / 6, 2.0])).mean()
    assert loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    # A batch of a rare class alone keeps its weight.
    assert loss(logits[3:], labels[3:]).item() == pytest.approx(2 * each[3].item(), rel=1e-5)
    shares = torch.nn.functional.one_hot(labels, 3).float()
    assert loss(logits, shares).item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss(logits.bfloat16(), labels).isfinite()


def test_the_next_client_has_its_own_weights() -> None:
    loss, logits = _loss(2, imbalance="effective-number", effective_beta=0.5), torch.zeros(1, 2)
    for counts in ((30, 10), (10, 30)):
        labels = torch.arange(2).repeat_interleave(torch.tensor(counts))
        loss.begin(labels)
        for kind in (0, 1):
            expected = math.log(2) * class_weights(labels, 2, 0.5)[kind].item()
            assert loss(logits, torch.tensor([kind])).item() == pytest.approx(expected, rel=1e-5)


def test_without_weights_nothing_is_weighed() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 0, 0, 2])
    loss, plain = _loss(3, imbalance="none"), _loss(3)
    loss.begin(labels)
    assert torch.equal(loss(logits, labels), plain(logits, labels))
