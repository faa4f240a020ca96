import hashlib
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpareto.supernet.arrays import IntArray
from fedpareto.training.config.partition import PartitionConfig, Scheme
from fedpareto.training.data.partition import schemes
from fedpareto.training.data.partition.partition import partition
from fedpareto.training.data.partition.schemes import ImpossibleError

#: A tenth of 3,000 images in each class, in no order.
_LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(10), 300))

#: Every scheme on labels for clients from a seed, with what flwr-datasets calls its partitioner.
_SCHEMES: dict[str, tuple[Callable[[IntArray, int, int], list[IntArray]], Callable[[Any, int, int], Any]]] = {
    "iid": (
        lambda labels, clients, seed: schemes.even(labels, clients),
        lambda flower, n, seed: flower.IidPartitioner(n),
    ),
    "linear": (
        lambda labels, clients, seed: schemes.growing(labels, clients, lambda number: number),
        lambda flower, n, seed: flower.LinearPartitioner(n),
    ),
    "square": (
        lambda labels, clients, seed: schemes.growing(labels, clients, np.square),
        lambda flower, n, seed: flower.SquarePartitioner(n),
    ),
    "exponential": (
        lambda labels, clients, seed: schemes.growing(labels, clients, np.exp),
        lambda flower, n, seed: flower.ExponentialPartitioner(n),
    ),
    "dirichlet": (
        lambda labels, clients, seed: schemes.dirichlet(labels, clients, 0.7, 2, np.random.default_rng(seed)),
        lambda flower, n, seed: flower.DirichletPartitioner(n, "label", alpha=0.7, min_partition_size=2, seed=seed),
    ),
    "pathological": (
        lambda labels, clients, seed: schemes.pathological(labels, clients, 2, np.random.default_rng(seed)),
        lambda flower, n, seed: flower.PathologicalPartitioner(
            n, "label", num_classes_per_partition=2, class_assignment_mode="first-deterministic", seed=seed
        ),
    ),
    "shard": (
        lambda labels, clients, seed: schemes.shards(labels, clients, 3, np.random.default_rng(seed)),
        lambda flower, n, seed: flower.ShardPartitioner(n, "label", num_shards_per_partition=3, seed=seed),
    ),
}


def _ours(scheme: str, labels: IntArray, clients: int, seed: int) -> list[list[int]] | None:
    try:
        return [sorted(part.tolist()) for part in _SCHEMES[scheme][0](labels, clients, seed)]
    except ImpossibleError:
        return None


def _flowers(scheme: str, labels: IntArray, clients: int, seed: int) -> list[list[int]] | None:
    """Return what flwr-datasets makes of the same question; None where it refuses."""
    # Seconds of import, which only this oracle pays for.
    from datasets import Dataset
    from flwr_datasets import partitioner

    chosen = _SCHEMES[scheme][1](partitioner, clients, seed)
    chosen.dataset = Dataset.from_dict({"label": labels.tolist(), "position": list(range(len(labels)))})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [sorted(chosen.load_partition(client)["position"]) for client in range(clients)]
    except (ValueError, IndexError, ZeroDivisionError):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("scheme", _SCHEMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_scheme_draws_as_flower_does(scheme: str, data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=12, max_size=150)))
    clients = data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 2**31 - 1))
    assert _ours(scheme, labels, clients, seed) == _flowers(scheme, labels, clients, seed)


@pytest.mark.parametrize(
    ("scheme", "digest"),
    [
        ("iid", "506ce6d538dd0ef7"),
        ("dirichlet", "2c44cf54117e430e"),
        ("pathological", "ade92c3ff50dc773"),
        ("shard", "e4bad430b0ce739f"),
        ("linear", "9349d8d1227ecb63"),
        ("square", "6837b5e56a5e2b09"),
        ("exponential", "6c20da259e867188"),
    ],
)
def test_a_seed_gives_the_partition_it_gave_with_flowers_partitioners(scheme: Scheme, digest: str) -> None:
    # Written with flwr-datasets 0.5: runs that were begun with it are begun again alike.
    parts = partition(_LABELS.tolist(), 6, PartitionConfig(scheme, alpha=0.4), 2, np.random.default_rng(11))
    assert hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] == digest


def test_ten_thousand_clients_have_their_shares_of_every_class() -> None:
    labels = np.repeat(np.arange(10), 50_000)
    parts = schemes.dirichlet(labels, 10_000, 10.0, 1, np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts])
    assert counts.sum(axis=0).tolist() == [50_000] * 10
    # A share of a class is Beta(10, 99,990): 5 images, with a variance of 5² / 10, to which rounding adds a sixth.
    assert counts.mean() == 5
    assert np.var(counts) == pytest.approx(2.5 + 1 / 6, rel=0.05)


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_no_image_is_given_twice(scheme: str) -> None:
    parts = _ours(scheme, _LABELS, 7, 3)
    assert parts is not None
    given = [position for part in parts for position in part]
    assert len(given) == len(set(given)) >= 2_400
    assert 0 <= min(given) <= max(given) < len(_LABELS)


@pytest.mark.parametrize("scheme", ["dirichlet", "pathological", "shard", "linear", "square", "exponential"])
def test_too_few_images_are_refused(scheme: str) -> None:
    assert _ours(scheme, np.array([0, 1, 0, 1]), 5, 0) is None


def test_an_exponential_beyond_what_numbers_hold_is_refused_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _ours("exponential", np.zeros(10_000, dtype=np.int64), 2_000, 0) is None


def test_given_shares_of_images_in_no_order_of_labels_are_cut_as_they_are() -> None:
    parts = schemes.shared(_LABELS, np.array([0.5, 0.125, 0.375]))
    assert [len(part) for part in parts] == [1500, 375, 1125]
    assert np.array_equal(np.concatenate(parts), np.arange(3000))


def _plain_capped(labels: IntArray, shares: list[float], alpha: float, seed: int) -> list[int]:
    """Sizes after one draw of FEAST's asymmetric Dirichlet, class by class as it is written."""
    generator, sizes = np.random.default_rng(seed), [0] * len(shares)
    for label in range(10):
        count = int((labels == label).sum())
        drawn = generator.dirichlet([max(alpha * count * share, 1e-6) for share in shares])
        for client, share in enumerate(shares):
            if sizes[client] >= share * len(labels):
                drawn[client] = 0
        ends = [int(end * count) for end in np.cumsum(drawn / sum(drawn))[:-1]]
        for client, (start, end) in enumerate(zip([0, *ends], [*ends, count], strict=True)):
            sizes[client] += end - start
    return sizes


def test_allotted_parts_are_the_draw_that_is_documented() -> None:
    shares = [0.1, 0.2, 0.3, 0.4]
    for seed in range(5):
        parts = schemes.allotted(_LABELS, np.array(shares), 0.1, 1, np.random.default_rng(seed))
        assert [len(part) for part in parts] == _plain_capped(_LABELS, shares, 0.1, seed)
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(_LABELS)))


def test_allotted_parts_come_near_their_shares_and_keep_their_skew() -> None:
    shares = np.array([1, 2, 4, 8]) / 15
    parts = schemes.allotted(_LABELS, shares, 0.05, 20, np.random.default_rng(0))
    sizes = np.array([len(part) for part in parts])
    # A client stops at the first class that takes it to its share.
    assert (sizes <= shares * 3000 + 300).all()
    assert (np.diff(sizes) > 0).all()
    largest = [np.bincount(_LABELS[part], minlength=10).max() / len(part) for part in parts]
    assert max(largest) > 0.2


def test_who_has_too_few_images_gets_the_rest_from_who_has_most() -> None:
    shares = np.array([0.01, 0.01, 0.98])
    parts = schemes.allotted(_LABELS, shares, 0.1, 100, np.random.default_rng(0))
    assert sorted(len(part) for part in parts)[:2] == [100, 100]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(_LABELS)))
    with pytest.raises(ImpossibleError):
        schemes.allotted(_LABELS, shares, 0.1, 1001, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(3))
def test_balanced_parts_end_at_an_equal_share(seed: int) -> None:
    sizes = [len(part) for part in schemes.balanced(_LABELS, 10, 0.3, 5, np.random.default_rng(seed))]
    free = [len(part) for part in schemes.dirichlet(_LABELS, 10, 0.3, 5, np.random.default_rng(seed))]
    assert sum(sizes) == len(_LABELS)
    # 300 images are an equal share; the class that takes a client there may take it further.
    assert max(sizes) < 600
    assert np.std(sizes) < np.std(free)


def test_a_draw_that_leaves_nobody_short_is_made_of_images_of_all_classes() -> None:
    config = PartitionConfig("dirichlet", 0.3)
    shares = np.array([0.2, 0.3, 0.5])
    parts = partition(_LABELS.tolist(), 3, config, 16, np.random.default_rng(1), shares)
    assert sorted(position for part in parts for position in part) == list(range(len(_LABELS)))
    assert len(parts[0]) < len(parts[2])
    even = partition(_LABELS.tolist(), 3, PartitionConfig("iid"), 16, np.random.default_rng(1), shares)
    assert [len(part) for part in even] == [600, 900, 1500]
