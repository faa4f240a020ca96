"""Bad input of every kind is one line that names the place, and nothing is left half-written."""

import errno
import json
import sys
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.images.formats import (
    rows,
    write_client_folders,
    write_leaf,
    write_npz,
    write_parquet,
    write_table,
    write_tars,
)
from helpers.runs.federation import MICRO, micro_config
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig, Reading
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.formats.names import numbered
from fedpareto.training.data.images import DataError
from fedpareto.training.data.sources import list_images
from fedpareto.training.engines.simulation.federation import new_simulation
from fedpareto.training.setup import new_run


def _refused(name: str, root: Path, *words: str, reading: Reading | None = None) -> None:
    with pytest.raises(UserError) as caught:
        list_images(name, str(root), "train", reading=reading or Reading()).read(Preparation(8, 1))
    assert "\n" not in str(caught.value)
    for part in words:
        assert part in str(caught.value)


_TABLES: list[tuple[Callable[[str], str], tuple[str, ...]]] = [
    (lambda text: text.replace('"" é.png', '"" e.png', 1), ("line 2: there is no file", "mend the row")),
    (lambda text: text.replace(",zero,", ",,", 1), ("has no label",)),
    (lambda text: text.replace(",Zoë,", ",,", 1), ("has no client",)),
    (lambda text: text.replace(",train", ",later", 1), ("is of split 'later'; it must be train, validation or test",)),
    (lambda text: text.replace(",Zoë,", ",zoë,", 1), ("names two clients that look equal", "spell them alike")),
    (lambda text: text.replace(",Zoë,", ",Zoe\u0308,", 1), ("names two clients that look equal",)),
    (lambda text: text.replace(",zero,", ",Zero,", 1), ("names two classes that look equal",)),
    (lambda text: text.replace("path,", "patch,", 1), ("has no column 'path'", "--data.image-column")),
    (lambda text: text.replace("split", "user", 1), ("2 columns that may hold the client", "--data.client-column")),
    (lambda text: text.replace("split", "client", 1), ("has a column twice",)),
    (lambda text: text.replace(",zero,", ",zero,more,", 1), ("5 fields, and the header has 4",)),
    (lambda text: text + '"open', ("mend its quotes",)),
    (lambda text: text.partition("\n")[0], ("holds no rows",)),
    (lambda text: "", ("holds no rows",)),
    (lambda text: text.replace(",train", ",test"), ("holds no images to train with",)),
]


@pytest.mark.parametrize(("change", "words"), _TABLES, ids=[words[0] for _, words in _TABLES])
def test_a_table_that_means_nothing_is_refused_in_one_line(
    change: Callable[[str], str], words: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_table(tmp_path / "data", rows())
    path.write_text(change(path.read_text("utf-8-sig")), encoding="utf-8")
    _refused("table", path, str(path), *words)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "data", rows())
    path.write_bytes(path.read_text("utf-8-sig").encode("utf-16"))
    _refused("table", path, "is no table in UTF-8")
    _refused("table", tmp_path / "none.csv", "none.csv")


def test_a_class_of_test_images_alone_is_refused(tmp_path: Path) -> None:
    made = [row._replace(label="two") if row.split == "test" else row for row in rows()]
    _refused("table", write_table(tmp_path / "data", made), "is of class 'two', of which no image is to train with")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4), min_size=1))
def test_names_are_told_apart_or_refused(values: list[str]) -> None:
    folded = {unicodedata.normalize("NFKC", value).casefold().strip() for value in values}
    if len(folded) == len(set(values)):
        names, numbers = numbered(values, "clients", "it")
        assert [names[number] for number in numbers] == [unicodedata.normalize("NFC", value) for value in values]
    elif all(len(value) > 1 for value in values):
        with pytest.raises(DataError, match="it names two clients that look equal") as caught:
            numbered(values, "clients", "it")
        assert "\n" not in str(caught.value)


def test_letters_are_classes_and_numbers_are_in_their_order() -> None:
    assert numbered(["b", "B", "10", "9"], "classes", "it")[0] == ("9", "10", "B", "b")
    assert numbered([10, 9], "clients", "it")[0] == ("9", "10")


def test_a_client_without_images_is_refused(tmp_path: Path) -> None:
    root = write_client_folders(tmp_path / "folders", rows())
    (root / "train" / "nobody").mkdir()
    _refused("clientfolders", root, "nobody is empty: it holds no CLASS folders")
    leaf = write_leaf(tmp_path / "leaf", rows())
    path = leaf / "train" / "all_data_0.json"
    content = json.loads(path.read_text())
    content["user_data"]["Zoë"] = {"x": [], "y": []}
    path.write_text(json.dumps(content))
    _refused("leaf", leaf, "the user 'Zoë' has 0 images and 0 labels")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": [True] * 20}, "has the label True"),
        ({"y": [-1] * 20}, "has the label -1"),
        ({"y": [0]}, "has 20 images and 1 label;"),
        ({"x": [[0.5] * 16] * 20}, "all of a set are as long"),
        ({"x": [[0.5]] * 19 + [[0.5, 1]]}, "no lists of equally many numbers"),
        ({"x": ["a"] * 20}, "no lists of equally many numbers"),
    ],
)
def test_a_user_of_leaf_that_means_nothing_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    root = write_leaf(tmp_path / "leaf", rows())
    path = root / "train" / "all_data_0.json"
    content = json.loads(path.read_text())
    content["user_data"]["Ann, B."] |= change
    path.write_text(json.dumps(content))
    _refused("leaf", root, words, str(path))


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "data.npz", rows())
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "y_train": np.where(np.arange(60) == 7, 2, arrays["y_train"])})
    _refused("npz", path, "labels go up to 2, and classes names 2")
    np.savez(path, **{**arrays, "y_train": np.where(np.arange(60) == 7, -1, arrays["y_train"])})
    _refused("npz", path, "labels hold -1")
    np.savez(path, **{**arrays, "x_test": np.zeros((20, 8, 8, 3), dtype=np.uint8)})
    _refused("npz", path, "channels of the splits are [1, 3]")
    np.savez(path, **{**arrays, "x_train": np.array([object()] * 60)})
    _refused("npz", path, "array x_train: Object arrays cannot be loaded")


def test_bytes_that_are_damaged_in_a_tar_are_named_and_skipped_by_choice(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", rows(), shards=1)
    path = root / "train-000.tar"
    with tarfile.open(path) as tar:
        images = [member for member in tar if member.name.endswith(".png")]
    content = bytearray(path.read_bytes())
    # The pixels of one picture, and the header of another sample's picture.
    content[images[4].offset_data + 20 : images[4].offset_data + 60] = bytes(40)
    path.write_bytes(content)
    _refused("webdataset", root, f"cannot decode {path}: 0004.png")
    said: list[str] = []
    listener, skip = ProgressListener(remark=said.append), Reading(skip_damaged=True)
    assert len(list_images("webdataset", str(root), "train", reading=skip, listener=listener)) == 59
    assert said == [
        words for words in said if words.startswith(f"skipped: 1 damaged picture of 60, first {path}: 0004")
    ]
    content[images[9].offset + 3 : images[9].offset + 200] = b"x" * 197
    path.write_bytes(content)
    _refused("webdataset", root, f"{path} is damaged at byte {images[9].offset}", "--data.skip-damaged true")
    assert len(list_images("webdataset", str(root), "train", reading=skip)) == 58
    path.write_bytes(content[: images[50].offset_data + 100])
    _refused("webdataset", root, str(path), reading=Reading())
    assert len(list_images("webdataset", str(root), "train", reading=skip)) == 48


def test_rows_that_are_damaged_in_a_parquet_are_named_and_skipped_by_choice(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data.parquet", rows())
    content = bytearray(path.read_bytes())
    place = content.index(rows()[40].png)
    content[place : place + 60] = bytes(60)
    path.write_bytes(content)
    _refused("table", path, f"{path} is damaged in rows 32 to 47", "--data.skip-damaged true")
    said: list[str] = []
    listener, skip = ProgressListener(remark=said.append), Reading(skip_damaged=True)
    assert len(list_images("table", str(path), "train", reading=skip, listener=listener)) == 44
    assert said[0].startswith(f"skipped: 16 rows, as {path} is damaged in rows 32 to 47")
    path.write_bytes(content[:500])
    _refused("table", path, f"cannot read {path}")


def _config(tmp_path: Path, name: str, root: Path, **data: Any) -> Any:
    return micro_config(
        tmp_path,
        data=DataConfig(name, str(root), **data),
        cache=None,
        partition=PartitionConfig("natural"),
        clients=ClientsConfig(per_round=2),
    )


@pytest.mark.parametrize("name", ["table", "clientfolders", "webdataset"])
def test_an_image_to_train_with_and_to_test_is_refused_unless_it_may_be(name: str, tmp_path: Path) -> None:
    writers = {"table": write_table, "clientfolders": write_client_folders, "webdataset": write_tars}
    made = rows()
    made[-1] = made[5]._replace(split="test", client="山")
    root = writers[name](tmp_path / "data", made)
    with pytest.raises(
        DataError, match=r"1 test image also to train with, first .*, which is .*; remove them"
    ) as caught:
        new_run(_config(tmp_path, name, root), SILENT)
    assert "--data.allow-duplicates true" in str(caught.value)
    assert not list((tmp_path).glob("run*"))
    assert new_simulation(_config(tmp_path, name, root, allow_duplicates=True), MICRO).names


@pytest.mark.slow
def test_a_disk_that_fills_while_the_federation_is_described_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path, "table", write_table(tmp_path / "data", rows()))
    wrote = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "federation.png":
            wrote(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return wrote(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="No space left on device") as caught:
        new_run(config, SILENT)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_one_line_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "data.parquet", rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    _refused("table", path, "pyarrow is not installed; install it with: pip install 'fedpareto[data]'")
