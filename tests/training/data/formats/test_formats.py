"""Every format lists the images, labels, splits and clients that were written in it, and a run goes through."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.images.formats import WRITERS, Row, rows, write_client_folders, write_huggingface, write_table, write_tars
from helpers.runs.federation import MICRO, micro_config

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig, Reading
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import DataError, NoTestImagesError
from fedpareto.training.data.sources import SplitName, list_images, source
from fedpareto.training.engines.simulation.federation import new_simulation, reopen_simulation
from fedpareto.training.setup import new_run

_NAMES = {"parquet": "table"}


def _found(name: str, root: Path, split: SplitName) -> set[tuple[bytes, str, str]]:
    """Pixels, class and client of every image of a split."""
    listing = list_images(_NAMES.get(name, name), str(root), split)
    images = listing.read(Preparation(8, 1)).images
    owners = [""] * len(listing)
    if listing.clients is not None:
        owners = [listing.client_names[client] for client in listing.clients.tolist()]
    return {
        (image.numpy().tobytes(), listing.classes[label], owner)
        for image, label, owner in zip(images, listing.labels.tolist(), owners, strict=True)
    }


def _written(made: list[Row], split: str, classes: dict[str, str]) -> set[tuple[bytes, str, str]]:
    return {
        (row.grey.tobytes(), classes[row.label], row.client if split == "train" else "")
        for row in made
        if row.split == split
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "huggingface" else ()) for name in WRITERS]
)
def test_a_format_has_the_images_labels_and_clients_that_were_written(name: str, tmp_path: Path) -> None:
    made = rows()
    root = WRITERS[name](tmp_path / "data", made)
    # LEAF numbers its classes.
    classes = {"zero": "0", "one": "1"} if name == "leaf" else {"zero": "zero", "one": "one"}
    for split in ("train", "test"):
        assert _found(name, root, split) == _written(made, split, classes)
    listing = list_images(_NAMES.get(name, name), str(root), "train")
    assert listing.client_names == tuple(sorted({row.client for row in made}))
    assert source(_NAMES.get(name, name)).validation(root) is None


@pytest.mark.parametrize("name", ["table", "parquet", "clientfolders"])
def test_validation_images_of_a_format_are_held_out(name: str, tmp_path: Path) -> None:
    made = [row._replace(split="val") if number < 12 else row for number, row in enumerate(rows(test=10))]
    root = WRITERS[name](tmp_path / "data", made)
    used = _NAMES.get(name, name)
    assert source(used).validation(root) == root
    listing = list_images(used, str(root), "train+validation")
    assert (len(listing), listing.held_out) == (60, 12)
    assert listing.clients is not None
    assert (listing.clients[-12:] == -1).all()
    assert len(list_images(used, str(root), "train")) == 48


@pytest.mark.slow
def test_a_dataset_has_the_clients_of_flowers_natural_partitioner(tmp_path: Path) -> None:
    import datasets
    from flwr_datasets.partitioner import NaturalIdPartitioner

    root = write_huggingface(tmp_path / "data", rows())
    partitioner = NaturalIdPartitioner(partition_by="user")
    partitioner.dataset = datasets.load_from_disk(str(root))["train"]
    listing = list_images("huggingface", str(root), "train")
    assert listing.clients is not None
    assert len(listing.client_names) == partitioner.num_partitions == 3
    for client, name in enumerate(listing.client_names):
        theirs = partitioner.load_partition(client)
        assert set(theirs["user"]) == {name}
        ours = listing.labels[listing.clients == client].tolist()
        assert theirs["digit"] == ours


def test_a_dataset_on_a_hub_is_fetched_when_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    root, asked = write_huggingface(tmp_path / "data", rows()), []

    def load(name: str) -> Any:
        asked.append(name)
        return datasets.load_from_disk(str(root))

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"hf://some/digits is on a hub; add --data\.download"):
        list_images("huggingface", "hf://some/digits", "train")
    assert len(list_images("huggingface", "hf://some/digits", "train", reading=Reading(download=True))) == 60
    assert asked == ["some/digits"]


def test_tars_are_named_by_a_pattern_and_have_no_test_images_then(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", rows())
    assert len(list_images("webdataset", str(root / "train-{000..001}.tar"), "train")) == 40
    with pytest.raises(NoTestImagesError, match="holds no test images"):
        list_images("webdataset", str(root / "train-{000..002}.tar"), "test")


def test_columns_of_other_names_are_chosen(tmp_path: Path) -> None:
    path = write_table(tmp_path / "data", rows())
    text = path.read_text("utf-8-sig")
    path.write_text(text.replace("path,label,client", "where,what,whose", 1))
    reading = Reading("where", "what", "whose")
    assert len(list_images("table", str(path), "train", reading=reading).client_names) == 3


@pytest.mark.parametrize("name", ["table", "leaf", "npz"])
def test_a_run_over_the_clients_of_a_format_is_prepared_and_found_again(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path / "data", rows(count=66))
    said: list[str] = []
    config = micro_config(
        tmp_path,
        data=DataConfig(name, str(root)),
        cache=None,
        partition=PartitionConfig("natural"),
        clients=ClientsConfig(per_round=2),
    )
    prepared = new_run(config, ProgressListener(remark=said.append))
    assert prepared.config.clients.count == 3
    assert any(words.startswith("3 clients of the data; ") for words in said)
    assert (prepared.folder / "federation.csv").read_text(encoding="utf-8").count("山") == 1
    again = reopen_simulation(prepared.folder, prepared.config, prepared.space, prepared.federation.split)  # type: ignore[arg-type]
    assert again.data.digest() == prepared.federation.split.digest  # type: ignore[union-attr]


def test_clients_of_folders_may_lie_without_a_folder_of_training_images(tmp_path: Path) -> None:
    made = rows(test=0)
    root = write_client_folders(tmp_path / "data", made)
    assert _found("clientfolders", root / "train", "train") == _found("clientfolders", root, "train")
    federation = new_simulation(
        micro_config(
            tmp_path,
            data=DataConfig("clientfolders", str(root)),
            partition=PartitionConfig("natural"),
            clients=ClientsConfig(per_round=1),
        ),
        MICRO,
    )
    assert federation.names == ("Ann, B.", "Zoë", "山")
    assert np.array_equal(federation.labels().sum(axis=1), federation.split.sizes)
