import hashlib
import os
import pickle
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import DataError, ImageSet
from fedpareto.training.data.sources import SplitName, list_images, load_images, source


def _values(data: ImageSet) -> Counter[tuple[bytes, int]]:
    pairs = zip(data.images, data.labels.tolist(), strict=True)
    return Counter((image.numpy().tobytes(), label) for image, label in pairs)


@pytest.mark.slow
def test_digits_are_split_into_disjoint_parts_that_are_all_of_them() -> None:
    train, test = (load_images("digits", "", split, Preparation(8)) for split in ("train", "test"))
    digits = load_digits()
    scaled = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    every = Counter(
        (np.broadcast_to(image, (3, 8, 8)).tobytes(), int(label))
        for image, label in zip(scaled, digits.target, strict=True)
    )
    assert _values(train) + _values(test) == every
    assert train.classes == test.classes == tuple("0123456789")
    assert train.loaded().dtype == torch.uint8
    assert train.labels.dtype == torch.int64


def test_a_fifth_of_every_digit_is_test_data() -> None:
    train, test = (load_images("digits", "", split, Preparation(8)).labels for split in ("train", "test"))
    for digit in range(10):
        held, kept = int((test == digit).sum()), int((train == digit).sum())
        assert held == -(-(held + kept) // 5)


def test_digits_are_resized_to_the_side_of_the_space() -> None:
    small, large = (load_images("digits", "", "test", Preparation(side)).loaded() for side in (8, 16))
    assert large.shape == (len(small), 3, 16, 16)
    # The mean brightness of an image outlives a change of size.
    means = [images.float().mean(dim=(1, 2, 3)) for images in (small, large)]
    torch.testing.assert_close(means[0], means[1], atol=3, rtol=0)


def _write_cifar(root: Path, dataset: Any, batches: dict[str, NDArray[np.uint8]], classes: int) -> dict[str, str]:
    """Write small files in CIFAR's own format; return their checksums."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    labels_key = "labels" if dataset is datasets.CIFAR10 else "fine_labels"
    contents: dict[str, Any] = {
        name: {"data": pixels, labels_key: [index % classes for index in range(len(pixels))]}
        for name, pixels in batches.items()
    }
    contents[dataset.meta["filename"]] = {dataset.meta["key"]: [f"class{label}" for label in range(classes)]}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return {name: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() for name in contents}


@pytest.mark.parametrize(
    ("name", "dataset", "train_files", "test_file"),
    [
        ("cifar10", datasets.CIFAR10, [f"data_batch_{index}" for index in range(1, 6)], "test_batch"),
        ("cifar100", datasets.CIFAR100, ["train"], "test"),
    ],
)
def test_cifar_is_read_from_its_own_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, dataset: Any, train_files: list[str], test_file: str
) -> None:
    generator = np.random.default_rng(0)
    batches = {file: generator.integers(0, 256, (4, 3072)).astype(np.uint8) for file in [*train_files, test_file]}
    sums = _write_cifar(tmp_path, dataset, batches, classes=3)
    monkeypatch.setattr(dataset, "train_list", [[file, sums[file]] for file in train_files])
    monkeypatch.setattr(dataset, "test_list", [[test_file, sums[test_file]]])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": sums[dataset.meta["filename"]]})
    parts: list[tuple[SplitName, list[str]]] = [("train", train_files), ("test", [test_file])]
    for split, files in parts:
        data = load_images(name, str(tmp_path), split, Preparation(32))
        # A row holds the red plane, then the green and the blue one, each row by row.
        expected = np.concatenate([batches[file] for file in files]).reshape(-1, 3, 32, 32)
        assert np.array_equal(data.loaded().numpy(), expected)
        assert data.labels.tolist() == [0, 1, 2, 0] * len(files)
        assert data.classes == ("class0", "class1", "class2")
    halved = load_images(name, str(tmp_path), "test", Preparation(16)).loaded()
    assert halved.shape == (4, 3, 16, 16)
    assert halved.dtype == torch.uint8
    # A damaged file is as good as none.
    file = tmp_path / dataset.base_folder / test_file
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"its files are damaged; set --data\.root, or pass --data\.download"):
        load_images(name, str(tmp_path), "test", Preparation(32))


@pytest.mark.parametrize(("name", "spelt"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_missing_cifar_is_an_error_that_names_the_option_to_fetch_it(tmp_path: Path, name: str, spelt: str) -> None:
    with pytest.raises(DataError, match=rf"{spelt} is not in .*pass --data\.download") as caught:
        load_images(name, str(tmp_path), "train", Preparation(32))
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _write_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8), **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **save)
    return path


def _write_folder(root: Path) -> None:
    """Write two classes of two training and one test image, of many sizes and formats."""
    red, blue = (200, 10, 10), (10, 10, 200)
    _write_image(root / "train" / "red" / "1.png", red, (8, 8))
    _write_image(root / "train" / "red" / "2.JPG", red, (40, 17), quality=100)
    _write_image(root / "train" / "blue" / "1.bmp", blue, (3, 50))
    _write_image(root / "train" / "blue" / "deeper" / "2.jpeg", blue, (8, 16), quality=100)
    _write_image(root / "test" / "red" / "1.png", red, (1, 1))
    _write_image(root / "test" / "blue" / "1.png", blue, (9, 8))
    (root / "train" / "red" / "notes.txt").write_text("no image")


def _load_folder(root: Path, split: SplitName = "train", side: int = 8) -> ImageSet:
    return load_images("imagefolder", str(root), split, Preparation(side))


def test_an_image_folder_is_decoded_resized_and_labelled_by_its_folders(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    parts: list[tuple[SplitName, list[int]]] = [("train", [0, 0, 1, 1]), ("test", [0, 1])]
    for split, labels in parts:
        data = _load_folder(tmp_path, split, 8)
        assert data.classes == ("blue", "red")
        assert data.labels.tolist() == labels
        assert data.images.shape == (len(labels), 3, 8, 8)
        assert data.loaded().dtype == torch.uint8
        # Plain colours stay what they are, whatever the size they had; JPEG may be off by a little.
        colours = torch.tensor([[10, 10, 200], [200, 10, 10]])[labels]
        torch.testing.assert_close(data.loaded().long(), colours[:, :, None, None].expand(-1, -1, 8, 8), atol=4, rtol=0)


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "test" / "blue" / "1.png")
    assert np.array_equal(_load_folder(tmp_path, "test").loaded()[0].permute(1, 2, 0).numpy(), pixels)


def test_the_middle_of_an_oblong_image_is_what_is_kept(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "test" / "blue" / "1.png")
    assert (_load_folder(tmp_path, "test").loaded()[0] == 255).all()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("L", 90, (90, 90, 90)), ("RGBA", (9, 80, 70, 255), (9, 80, 70)), ("1", 1, (255, 255, 255))],
)
def test_grey_and_transparent_images_become_rgb(tmp_path: Path, mode: str, colour: Any, expected: Any) -> None:
    _write_folder(tmp_path)
    Image.new(mode, (9, 9), colour).save(tmp_path / "test" / "blue" / "1.png")
    assert tuple(_load_folder(tmp_path, "test").loaded()[0, :, 4, 4].tolist()) == expected


def test_a_grey_image_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    shades = np.tile(np.array([0, 16384, 32768, 65535], dtype=np.uint16).repeat(2), (8, 1))
    Image.fromarray(shades).save(tmp_path / "test" / "blue" / "1.png")
    row = _load_folder(tmp_path, "test").loaded()[0, 0, 4, ::2].tolist()
    assert row == pytest.approx([0, 64, 128, 255], abs=1)


def _no_image(path: Path) -> None:
    path.write_bytes(b"this is no image at all")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def _absurd_size(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, "BMP")
    content = bytearray(path.read_bytes())
    content[20:22] = b"\xff\xff"
    content[24:26] = b"\xff\x7f"
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("9.png", _no_image),
        ("9.jpg", _empty),
        ("9.jpg", _truncated),
        ("9.png", _truncated),
        ("9.bmp", _absurd_size),
    ],
)
def test_an_image_that_cannot_be_decoded_is_an_error_that_names_the_file(tmp_path: Path, name: str, spoil: Any) -> None:
    _write_folder(tmp_path)
    path = tmp_path / "train" / "blue" / name
    spoil(path)
    with pytest.raises(DataError, match=r"cannot decode .*; repair or remove it") as caught:
        _load_folder(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_train_folder_is_an_error_that_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*train; images belong in ROOT/train/CLASS"):
        _load_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train is empty: it holds no CLASS folders"):
        _load_folder(tmp_path)


def test_a_missing_test_folder_matters_only_to_those_who_want_its_images(tmp_path: Path) -> None:
    _write_image(tmp_path / "train" / "red" / "1.png", (1, 1, 1))
    assert len(_load_folder(tmp_path)) == 1
    with pytest.raises(DataError, match=r"there is no folder .*test, and test images were asked for"):
        _load_folder(tmp_path, "test")


def test_a_class_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "green").mkdir()
    with pytest.raises(DataError, match=r"train/green holds no images"):
        _load_folder(tmp_path)


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_a_class_in_one_part_only_is_an_error_that_names_both(tmp_path: Path, part: str, other: str) -> None:
    _write_folder(tmp_path)
    _write_image(tmp_path / part / "green" / "1.png", (1, 1, 1))
    with pytest.raises(DataError, match=rf"{other} lacks the class 'green', which .*{part} has"):
        _load_folder(tmp_path)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_class_is_the_same_in_every_split_however_its_name_is_coded(
    tmp_path: Path, forms: tuple[Literal["NFC", "NFD"], Literal["NFC", "NFD"]]
) -> None:
    colours = {"crème": (200, 10, 10), "brûlée": (10, 10, 200), "zoo": (9, 99, 9)}
    for part, form in zip(("train", "test"), forms, strict=True):
        for name, colour in colours.items():
            _write_image(tmp_path / part / unicodedata.normalize(form, name) / "1.png", colour)
    train, test = _load_folder(tmp_path, "train"), _load_folder(tmp_path, "test")
    assert train.classes == test.classes == ("brûlée", "crème", "zoo")
    assert torch.equal(train.loaded(), test.loaded())
    assert torch.equal(train.labels, test.labels)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_datas_own_validation_images_come_last(tmp_path: Path, name: str) -> None:
    _write_folder(tmp_path)
    _write_image(tmp_path / name / "red" / "1.png", (1, 2, 3))
    _write_image(tmp_path / name / "blue" / "1.png", (4, 5, 6))
    listing = list_images("imagefolder", str(tmp_path), "train+validation")
    assert (len(listing), listing.held_out) == (6, 2)
    assert listing.read(Preparation(8)).loaded()[4:, :, 0, 0].tolist() == [[4, 5, 6], [1, 2, 3]]
    assert len(list_images("imagefolder", str(tmp_path), "train")) == 4
    assert source("imagefolder").validation(tmp_path) == tmp_path / name


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
def test_other_data_sets_hold_nothing_out_themselves(tmp_path: Path, name: str) -> None:
    (tmp_path / "val").mkdir()
    assert source(name).validation(tmp_path) is None


def test_an_image_folder_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"drop --data\.download and set --data\.root"):
        load_images("imagefolder", str(tmp_path), "train", Preparation(8), download=True)


def test_more_images_than_memory_is_an_error_before_any_is_decoded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _write_folder(tmp_path)
    (tmp_path / "train" / "red" / "1.png").write_bytes(b"would not decode")
    # Four images of 64×64 twice over are 98,304 bytes.
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 23}[name])
    with pytest.raises(
        DataError, match=r"4 images of 64×64 in 3 channels need .* use fewer .* or a space of a lower resolution"
    ):
        _load_folder(tmp_path, side=64)


def test_an_unknown_data_set_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(
        DataError, match="unknown data set 'mnist'; valid: arrays, cifar10, cifar100, clientfolders, digits, "
    ):
        load_images("mnist", "", "train", Preparation(8))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagefolder"])
def test_natural_images_are_cropped_from_32_pixels_on_and_mirrored_digits_only_moved(name: str) -> None:
    assert source(name).augmentation(32) == Augmentation(crop=4, flip=True)
    assert source(name).augmentation(31) == Augmentation(flip=True)
    assert source("digits").augmentation(8) == Augmentation(crop=1)
