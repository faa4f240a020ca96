"""Images in every store: the pixels of memory, whatever the files are, or one line where they are not to be had."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images.pictures import noise
from PIL import Image
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.training.config.data import Fit, Store
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.batches import Batches, plain_batches
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.preparation import Preparation, read_picture
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.images import DataError, ImageSet, normalisation_of
from fedpareto.training.data.stores import choice
from fedpareto.training.data.stores.choice import Storage
from fedpareto.training.data.stores.decoding_worker import decoded
from fedpareto.training.data.stores.file_digests import PREFIX, files_digest
from fedpareto.training.data.stores.stored import StoredPixels, read_ahead, stored

_PREPARATION = Preparation(12)

#: Kinds of JPEG files and others: mode, suffix, EXIF orientation.
_KINDS = (("RGB", "jpg", 1), ("L", "jpg", 1), ("CMYK", "jpg", 1), ("RGB", "jpg", 6), ("RGB", "png", 1))


def _listing(folder: Path, count: int = 15) -> Listing:
    """Pictures of every kind and some shapes, which were written a while ago."""
    paths = []
    for number in range(count):
        mode, suffix, orientation = _KINDS[number % len(_KINDS)]
        path, exif = folder / f"{number:02d}.{suffix}", Image.Exif()
        exif[274] = orientation
        picture = Image.fromarray(noise(number, 4, 5)).resize((16 + number % 3 * 4, 16)).convert(mode)
        picture.save(path, exif=exif) if suffix == "jpg" else picture.save(path)
        paths.append(path)
    return Listing(torch.arange(count) % 2, ("a", "b"), Files(tuple(paths)))


@pytest.fixture(autouse=True)
def _all_settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr("fedpareto.training.data.stores.disk.settled", lambda stamped, now: True)


def _read(listing: Listing, store: Store, preparation: Preparation = _PREPARATION) -> ImageSet:
    return listing.read(preparation, SILENT, storage=Storage(store, 2))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["disk", "encoded"])
def test_a_store_has_the_pixels_of_memory(tmp_path: Path, store: Store) -> None:
    listing, chosen = _listing(tmp_path), torch.tensor([7, 0, 14])
    expected, data = _read(listing, "memory"), _read(listing, store)
    assert isinstance(data.images, StoredPixels)
    assert isinstance(expected.images, Tensor)
    assert torch.equal(data.loaded(), expected.images)
    assert torch.equal(data.subset(chosen).loaded(), expected.images[chosen])
    assert data.digest() == expected.digest()
    assert normalisation_of(data) == normalisation_of(expected)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_and_pillow_decode_the_same_pixels(tmp_path: Path, channels: int, fit: Fit) -> None:
    preparation = Preparation(12, channels, fit)
    for path in _listing(tmp_path).pictures.paths or ():
        assert np.array_equal(decoded(path, preparation), read_picture(path, preparation))


def test_the_disk_is_read_again_by_the_next_command_and_by_one_that_uses_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, part = _listing(tmp_path), torch.tensor([2, 3, 9])
    expected = _read(listing, "memory").loaded()
    _read(listing, "disk")
    monkeypatch.setattr(choice, "decoded_files", None)
    assert torch.equal(_read(listing, "disk").loaded(), expected)
    assert torch.equal(_read(listing.subset(part), "disk").loaded(), expected[part])


def test_files_that_may_change_unnoticed_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpareto.training.data.stores.disk.settled", lambda stamped, now: False)
    listing = _listing(tmp_path)
    data = _read(listing, "disk")
    assert list((tmp_path / "kept" / "pixels").iterdir()) == []
    assert torch.equal(data.loaded(), _read(listing, "memory").loaded())


def test_a_damaged_file_on_the_disk_is_refused_with_what_to_do(tmp_path: Path) -> None:
    listing = _listing(tmp_path)
    _read(listing, "disk")
    kept = next((tmp_path / "kept" / "pixels").glob("*.pixels"))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(its digest does not fit\); remove it"):
        _read(listing, "disk")


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        _read(_listing(tmp_path), "disk")
    assert list((tmp_path / "kept" / "pixels").iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "1kB")
    with pytest.raises(
        UserError, match=r"may be kept \(FEDPARETO_CACHE_SIZE\); free some, or give --data.store encoded"
    ):
        _read(_listing(tmp_path), "disk")


@pytest.mark.parametrize(
    ("memory", "disk", "expected"), [(10**9, "1GB", "memory"), (1000, "1GB", "disk"), (1000, "1kB", "encoded")]
)
def test_auto_takes_the_first_store_that_has_room(
    monkeypatch: pytest.MonkeyPatch, memory: int, disk: str, expected: Store
) -> None:
    monkeypatch.setattr(choice, "available_memory", lambda: memory)
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", disk)
    assert choice._chosen(15, _PREPARATION) == expected


@pytest.mark.slow
def test_a_file_that_cannot_be_decoded_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    listing = _listing(tmp_path)
    data = _read(listing, "encoded")
    whole = (tmp_path / "05.jpg").read_bytes()
    (tmp_path / "05.jpg").write_bytes(whole[:-150])
    with pytest.raises(DataError, match=r"cannot decode .*05\.jpg: .*; repair or remove it"):
        data.loaded()
    (tmp_path / "05.jpg").write_bytes(whole)
    assert torch.equal(data.loaded(), _read(listing, "memory").loaded())


@pytest.mark.slow
def test_a_worker_that_was_killed_is_said_and_replaced(tmp_path: Path) -> None:
    data = _read(_listing(tmp_path), "encoded")
    assert isinstance(data.images, StoredPixels)
    before, decoders = data.loaded(), data.images.source._decoders  # type: ignore[attr-defined]
    # Both are killed while no one waits for them: those that come next are new.
    for worker in decoders._started:
        worker.kill()
        worker.wait()
    assert torch.equal(data.loaded(), before)


def test_files_are_told_apart_by_content_without_decoding_any(tmp_path: Path) -> None:
    listing = _listing(tmp_path)
    data = _read(listing, "encoded")
    found = files_digest(data, "crop")
    assert found.startswith(PREFIX)
    assert found == files_digest(_read(listing, "memory"), "crop")
    assert found != files_digest(data, "pad")
    other = dataclasses.replace(data, labels=1 - data.labels)
    assert found != files_digest(other, "crop")
    (tmp_path / "03.jpg").write_bytes((tmp_path / "13.jpg").read_bytes())
    assert found != files_digest(data, "crop")


# Batches are what they are of images in memory.


class _Noted:
    """Source of pixels in memory that notes what was read."""

    scanned = True

    def __init__(self, images: Tensor) -> None:
        self.images, self.reads = images, list[list[int]]()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = self.images.shape
        return count, channels, height, width

    def read(self, positions: Sequence[int]) -> Tensor:
        self.reads.append(list(positions))
        return self.images[torch.tensor(positions)]


def _both(count: int) -> tuple[ImageSet, ImageSet, _Noted]:
    images = torch.from_numpy(np.stack([noise(number) for number in range(count)])).permute(0, 3, 1, 2).contiguous()
    source, labels = _Noted(images), torch.arange(count) % 2
    return ImageSet(images, labels, ("a", "b")), ImageSet(stored(source), labels, ("a", "b")), source


def test_epochs_and_plain_batches_are_those_of_images_in_memory() -> None:
    memory, store, source = _both(21)
    normalisation = normalisation_of(memory)
    recipe = Batches(4, Augmentation(crop=1, flip=True, cutout=2), normalisation, 2)

    def epoch(data: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        return recipe.epoch(data, 8, torch.Generator().manual_seed(3))

    for ours, theirs in (
        (epoch(store), epoch(memory)),
        *([(plain_batches(store, 4, 6, normalisation), plain_batches(memory, 4, 6, normalisation))]),
    ):
        for (images, labels), (expected, wanted) in zip(ours, theirs, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, wanted)
    assert max(map(len, source.reads)) == 4


def test_no_more_than_a_few_batches_are_read_ahead() -> None:
    _, store, source = _both(40)
    batches = read_ahead(store.images, torch.split(torch.arange(40), 2))
    next(batches)
    assert len(source.reads) <= 4
    batches.close()  # type: ignore[attr-defined]


def test_remarks_of_progress_name_the_store(tmp_path: Path) -> None:
    remarks: list[str] = []
    _listing(tmp_path).read(_PREPARATION, ProgressListener(remark=remarks.append), storage=Storage("encoded", 2))
    assert remarks == [
        "15 images are decoded batch by batch by 2 processes, as they need 10.6 kB decoded (data.store encoded)"
    ]
