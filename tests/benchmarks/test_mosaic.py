from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images.mosaics import write_mosaic
from mosaic import CIFAR10, is_mosaic, read_mosaic

from fedpareto.training.data.images import DataError


def test_every_tile_is_an_image_row_by_row_with_its_label(tmp_path: Path) -> None:
    tiles = write_mosaic(tmp_path, "train", 3, 5)
    data = read_mosaic(tmp_path, "train")
    assert data.images.shape == (15, 3, 32, 32)
    assert data.loaded().dtype == torch.uint8
    difference = data.loaded().int() - torch.from_numpy(tiles.copy()).permute(0, 3, 1, 2).int()
    assert difference.abs().max() <= 4
    assert data.labels.tolist() == [number % 10 for number in range(15)]
    assert data.classes == CIFAR10
    assert is_mosaic(tmp_path)
    assert not is_mosaic(tmp_path / "train.jpg")


def test_the_side_follows_from_the_picture_and_the_labels(tmp_path: Path) -> None:
    write_mosaic(tmp_path, "test", 2, 4, side=16)
    assert read_mosaic(tmp_path, "test").images.shape == (8, 3, 16, 16)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(14, dtype=np.uint8), "do not fill"),
        (np.zeros(15), "must hold one uint8"),
        (np.zeros((15, 1), dtype=np.uint8), "must hold one uint8"),
        (np.zeros(0, dtype=np.uint8), "must hold one uint8"),
        (np.array([{}]), "cannot read"),
    ],
    ids=["count", "type", "shape", "none", "pickle"],
)
def test_labels_that_are_not_the_tiles_are_refused(tmp_path: Path, labels: np.ndarray[Any, Any], words: str) -> None:
    write_mosaic(tmp_path, "train", 3, 5)
    np.save(tmp_path / "train-labels.npy", labels)
    with pytest.raises(DataError, match=words):
        read_mosaic(tmp_path, "train")


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    write_mosaic(tmp_path, "train", 3, 5)
    picture = (tmp_path / "train.jpg").read_bytes()
    (tmp_path / "train.jpg").write_bytes(picture[: len(picture) // 2])
    with pytest.raises(DataError, match=r"cannot read .*train\.jpg"):
        read_mosaic(tmp_path, "train")
    with pytest.raises(DataError, match=r"cannot read .*test-labels\.npy"):
        read_mosaic(tmp_path, "test")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mosaic(tmp_path, "train", 3, 5)
    monkeypatch.setattr("mosaic.MOST_PIXELS", 3 * 5 * 32 * 32 - 1)
    with pytest.raises(DataError, match="too many for a mosaic"):
        read_mosaic(tmp_path, "train")
