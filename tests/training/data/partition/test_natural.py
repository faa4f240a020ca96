"""Natural clients: as the data name them, those with too few images left out, and what is told of them."""

import csv
import dataclasses
import io
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.partition import PartitionConfig, PartitionError
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.partition.natural import natural_clients, with_count
from fedpareto.training.data.partition.picture import federation_picture
from fedpareto.training.data.partition.statistics import FederationStatistics


def _listing(owners: list[int], names: tuple[str, ...] = ()) -> Listing:
    pixels = np.zeros((len(owners), 2, 2, 1), dtype=np.uint8)
    labels = torch.arange(len(owners)) % 2
    return Listing(labels, ("a", "b"), Arrays("noise", pixels), clients=torch.tensor(owners), client_names=names)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.integers(2, 5), st.randoms())
def test_every_client_has_its_own_images_and_those_of_few_are_left_out(
    owners: list[int], least: int, random: Random
) -> None:
    training = torch.tensor(sorted(random.sample(range(len(owners)), len(owners) // 2)))
    names = tuple(f"client {number}" for number in range(10))
    own = {
        name: [place for place, image in enumerate(training.tolist()) if owners[image] == number]
        for number, name in enumerate(names)
    }
    expected = {name: part for name, part in own.items() if len(part) >= least}
    if not expected:
        with pytest.raises(PartitionError, match=f"none of 10 clients has partition.min_images {least}"):
            natural_clients(_listing(owners, names), training, least)
        return
    found = natural_clients(_listing(owners, names), training, least)
    assert dict(zip(found.names, found.parts, strict=True)) == expected
    assert found.names == tuple(expected)
    assert bool(found.remarks) == (len(expected) < 10)


def _config(count: int, per_round: int = 2) -> RunConfig:
    return RunConfig(partition=PartitionConfig("natural"), clients=ClientsConfig(count, per_round))


def test_the_number_of_clients_is_that_of_the_data_unless_another_was_asked_for() -> None:
    found = natural_clients(_listing([0, 0, 1, 2, 2, 3, 3]), torch.arange(7), 2)
    assert found.names == ("0", "2", "3")
    # Left out, with those who are left out, without them.
    for count in (20, 4, 3):
        assert with_count(_config(count), found).clients.count == 3
    with pytest.raises(PartitionError) as caught:
        with_count(_config(5), found)
    assert str(caught.value) == (
        "clients.count is 5, and the images belong to 3 clients, 1 of 4 left out for their few; give "
        "--clients.count 3, or leave it out"
    )
    # More a round than 20 are no mistake before the data are known.
    with pytest.raises(UserError, match=r"clients\.per_round is 30, more than the 3 clients"):
        with_count(_config(20, per_round=30), found)


def test_statistics_are_a_line_a_table_and_a_picture() -> None:
    labels = np.array([[3, 0], [40, 41], [1, 1]])
    found = FederationStatistics(("Ann", 'B"o, ö', "C"), ("cat", "dog"), labels, 16)
    assert found.words() == (
        "3 clients of the data; images of a client: 2, 3, 81; classes: 1, 2, 2 (least, median, most); 2 with less than "
        "a batch of 16, who train on it"
    )
    assert dataclasses.replace(found, batch=2).words().endswith("each fills a batch")
    rows = list(csv.reader(io.StringIO(found.csv())))
    assert rows == [
        ["client", "name", "images", "classes", "class cat", "class dog"],
        ["0", "Ann", "3", "1", "3", "0"],
        ["1", 'B"o, ö', "81", "2", "40", "41"],
        ["2", "C", "2", "2", "1", "1"],
    ]
    assert federation_picture(found).startswith(b"\x89PNG")
