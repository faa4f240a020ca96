from collections import Counter

import numpy as np
import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.partition import PartitionConfig, PartitionError, Scheme
from fedpareto.training.data.partition.partition import partition

_SCHEMES: tuple[Scheme, ...] = ("iid", "dirichlet", "pathological", "shard", "linear", "square", "exponential")

#: 400 images of 4 classes, sorted as data sets often are.
_LABELS = np.repeat(range(4), 100).tolist()


def _parts(config: PartitionConfig, clients: int = 5, batch: int = 4, seed: int = 0) -> list[list[int]]:
    return partition(_LABELS, clients, config, batch, np.random.default_rng(seed))


def _classes(part: list[int]) -> Counter[int]:
    return Counter(_LABELS[position] for position in part)


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_every_image_goes_to_exactly_one_client(scheme: Scheme) -> None:
    parts = _parts(PartitionConfig(scheme))
    assert len(parts) == 5
    assert sorted(position for part in parts for position in part) == list(range(400))


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_every_client_has_at_least_one_batch(scheme: Scheme) -> None:
    assert min(map(len, _parts(PartitionConfig(scheme)))) >= 4


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_the_split_is_the_generators(scheme: Scheme) -> None:
    first, again, other = (_parts(PartitionConfig(scheme), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_iid_clients_have_equal_parts_of_all_classes() -> None:
    parts = _parts(PartitionConfig("iid"))
    assert [len(part) for part in parts] == [80] * 5
    assert all(min(_classes(part)[label] for label in range(4)) >= 8 for part in parts)


def _skew(alpha: float) -> float:
    """Mean share of the most frequent class of a client."""
    shares = [max(_classes(part).values()) / len(part) for part in _parts(PartitionConfig(alpha=alpha), seed=3)]
    return sum(shares) / len(shares)


def test_a_smaller_alpha_is_more_skewed() -> None:
    assert _skew(0.1) > _skew(1.0) > _skew(1000.0)
    assert _skew(1000.0) < 0.35
    assert _skew(0.1) > 0.6


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_pathological_clients_see_the_number_of_classes_asked_for(classes: int) -> None:
    parts = _parts(PartitionConfig("pathological", classes_per_client=classes))
    assert [len(_classes(part)) for part in parts] == [classes] * 5


def test_shards_are_runs_of_one_or_two_classes() -> None:
    parts = _parts(PartitionConfig("shard", shards_per_client=1), clients=8)
    assert [len(part) for part in parts] == [50] * 8
    assert [len(_classes(part)) for part in parts] == [1] * 8
    two = _parts(PartitionConfig("shard", shards_per_client=2), clients=4)
    assert max(len(_classes(part)) for part in two) <= 2


@pytest.mark.parametrize(
    ("scheme", "shares"),
    [
        ("linear", [1 / 15, 2 / 15, 3 / 15, 4 / 15, 5 / 15]),
        ("square", [1 / 55, 4 / 55, 9 / 55, 16 / 55, 25 / 55]),
        ("exponential", [0.0117, 0.0317, 0.0861, 0.2341, 0.6364]),
    ],
)
def test_quantity_skew_grows_with_the_client(scheme: Scheme, shares: list[float]) -> None:
    sizes = [len(part) for part in _parts(PartitionConfig(scheme))]
    assert sizes == pytest.approx([400 * share for share in shares], abs=5)


def test_positions_are_sorted_plain_integers() -> None:
    for part in _parts(PartitionConfig("iid")):
        assert part == sorted(part)
        assert {type(position) for position in part} == {int}


@pytest.mark.parametrize(
    ("config", "clients", "batch", "remedy"),
    [
        (PartitionConfig("iid"), 5, 81, "lower --client.batch-size or use fewer --clients.count"),
        (PartitionConfig("square"), 5, 16, "lower --client.batch-size or use fewer --clients.count"),
        (PartitionConfig("dirichlet", alpha=0.01), 30, 8, "raise --partition.alpha (now 0.01)"),
        (PartitionConfig("shard", shards_per_client=2), 5, 90, "lower --partition.shards-per-client"),
        (PartitionConfig("pathological", classes_per_client=5), 5, 4, "lower --partition.classes-per-client"),
        (PartitionConfig("pathological", classes_per_client=1), 5, 60, "lower --partition.classes-per-client"),
    ],
)
def test_a_client_under_one_batch_is_an_error_that_says_what_to_change(
    config: PartitionConfig, clients: int, batch: int, remedy: str
) -> None:
    with pytest.raises(PartitionError) as caught:
        _parts(config, clients, batch)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_more_clients_than_images_is_an_error_of_one_line(scheme: Scheme) -> None:
    with pytest.raises(PartitionError, match=r"use fewer --clients\.count"):
        partition([0, 1, 2, 0, 1], 10, PartitionConfig(scheme), 2, np.random.default_rng(0))


def test_more_shards_than_images_is_an_error_of_one_line() -> None:
    with pytest.raises(PartitionError, match=r"lower --partition\.shards-per-client"):
        _parts(PartitionConfig("shard", shards_per_client=300), clients=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0.0}, r"partition\.alpha is 0\.0; it must be positive"),
        ({"alpha": -1.0}, r"partition\.alpha is -1\.0"),
        ({"alpha": float("nan")}, r"partition\.alpha is nan"),
        ({"classes_per_client": 0}, r"partition\.classes_per_client is 0; it must be at least 1"),
        ({"shards_per_client": 0}, r"partition\.shards_per_client is 0; it must be at least 1"),
    ],
)
def test_a_setting_that_means_nothing_is_an_error_that_names_it(fields: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PartitionConfig(**fields)  # type: ignore[arg-type]
