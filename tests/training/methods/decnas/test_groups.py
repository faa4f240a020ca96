"""Groups of decnas' clients: as many clients, images and labels of each kind in one as in another."""

import numpy as np
import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.arrays import IntArray
from fedpareto.training.config.partition import PartitionConfig, Scheme
from fedpareto.training.data.partition.partition import partition
from fedpareto.training.methods.decnas.groups import distance, placed

_CLASSES = 10


def _labels(clients: int, scheme: Scheme, seed: int) -> IntArray:
    """Return the labels of clients that a partition of 4,000 images gives them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, _CLASSES, 4000)
    config = PartitionConfig(scheme, alpha=0.3, classes_per_client=2)
    parts = partition(labels.tolist(), clients, config, 2, generator)
    return np.stack([np.bincount(labels[part], minlength=_CLASSES) for part in parts])


def _everyone(clients: int, groups: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.ones((clients, groups), dtype=np.bool_)


@pytest.mark.parametrize("scheme", ["dirichlet", "pathological", "shard"])
@pytest.mark.parametrize(("clients", "groups"), [(20, 4), (40, 12)])
def test_groups_are_nearer_to_the_federations_labels_than_random_ones(
    scheme: Scheme, clients: int, groups: int
) -> None:
    ours, random = [], []
    for seed in range(12):
        labels = _labels(clients, scheme, seed)
        drawn = np.random.default_rng(seed).permutation(clients)
        made = placed([[] for _ in range(groups)], range(clients), labels, _everyone(clients, groups))
        ours.append(np.mean([distance(group, labels) for group in made]))
        random.append(np.mean([distance(drawn[start::groups].tolist(), labels) for start in range(groups)]))
    # By a good margin, and seldom by luck.
    assert np.mean(ours) < 0.9 * np.mean(random)
    assert np.mean(np.array(ours) < np.array(random)) > 0.8


@pytest.mark.parametrize("scheme", ["linear", "square"])
def test_groups_of_clients_with_unequally_many_images_are_more_equal_than_random_ones(scheme: Scheme) -> None:
    labels = _labels(12, scheme, 0)
    made = placed([[] for _ in range(3)], range(12), labels, _everyone(12, 3))
    ours = np.std([labels[group].sum() for group in made])
    orders = [np.random.default_rng(seed).permutation(12) for seed in range(20)]
    random = np.mean([np.std([labels[order[start::3]].sum() for start in range(3)]) for order in orders])
    assert ours < 0.3 * random


@given(
    clients=st.integers(1, 25),
    groups=st.integers(1, 8),
    able=st.sampled_from((0.3, 0.7, 1.0)),
    seed=st.integers(0, 10**6),
)
@runs(200)
def test_every_client_that_can_run_something_is_in_one_group_it_can_run(
    clients: int, groups: int, able: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(1, 50, (clients, 3))
    can = generator.random((clients, groups)) < able
    made = placed([[] for _ in range(groups)], range(clients), labels, can)
    members = [client for group in made for client in group]
    assert sorted(members) == [client for client in range(clients) if can[client].any()]
    assert all(can[client, index] for index, group in enumerate(made) for client in group)
    if able == 1:
        sizes = [len(group) for group in made]
        assert max(sizes) - min(sizes) <= 1
    # A group without a client has none that another group could spare.
    for index, group in enumerate(made):
        if not group:
            assert all(len(other) == 1 for other in made if any(can[client, index] for client in other))


def test_placing_more_clients_leaves_those_that_are_there_where_they_are() -> None:
    labels = np.array([[9, 0], [0, 9], [8, 0], [0, 8]])
    made = placed([[0], [1]], [2, 3], labels, _everyone(4, 2))
    # Each goes where its own labels are fewest.
    assert made == [[0, 3], [1, 2]]


def test_the_distance_is_the_share_of_labels_that_would_have_to_change() -> None:
    labels = np.array([[5, 5], [10, 0], [0, 10]])
    assert distance([0], labels) == 0
    assert distance([1], labels) == distance([2], labels) == 0.5
    assert distance([1, 2], labels) == 0
