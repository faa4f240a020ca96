import functools
import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images.pictures import noise, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.preparation import Preparation, prepare_array, read_picture
from fedpareto.training.data.files.reading import Arrays, Files, check_memory
from fedpareto.training.data.images import DataError


def _listener() -> tuple[ProgressListener, list[str], list[tuple[str, int, int]]]:
    remarks: list[str] = []
    reports: list[tuple[str, int, int]] = []
    return ProgressListener(lambda *report: reports.append(report), remarks.append), remarks, reports


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_read_as_the_preparation_reads_each(tmp_path: Path, channels: int) -> None:
    write_pictures(tmp_path, {"a": {"b": 3}}, size=(9, 5))
    paths = tuple(sorted(tmp_path.rglob("*.png")))
    for fit in ("crop", "pad", "stretch"):
        preparation = Preparation(6, channels, fit)
        pixels = Files(paths).read(preparation, SILENT)
        assert pixels.shape == (3, channels, 6, 6)
        for path, image in zip(paths, pixels, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), read_picture(path, preparation))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.integers(2, 9), st.data())
def test_arrays_are_read_as_the_preparation_reads_each(
    height: int, width: int, channels: int, side: int, data: st.DataObject
) -> None:
    pixels = np.stack([noise(seed, height, width, channels) for seed in range(3)])
    wanted = data.draw(st.sampled_from([1, 3] if channels in (1, 3) else [channels]))
    preparation = Preparation(side, wanted)
    read = Arrays("noise", pixels).subset(torch.tensor([0, 2])).read(preparation, SILENT)
    assert read.shape == (2, wanted, side, side)
    assert read.is_contiguous()
    for image, source in zip(read, pixels[[0, 2]], strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), prepare_array(source, preparation))


@pytest.mark.parametrize(
    ("fit", "words"),
    [("crop", "cropped to their centre"), ("pad", "padded with white"), ("stretch", "stretched to squares")],
)
def test_pictures_that_are_no_squares_are_told_of_once(tmp_path: Path, fit: Any, words: str) -> None:
    write_pictures(tmp_path, {"a": {"wide": 3}}, size=(4, 9))
    write_pictures(tmp_path, {"a": {"square": 2}})
    np.save(tmp_path / "tall.npy", noise(9, 9, 4))
    paths = tuple(sorted([*tmp_path.rglob("*.png"), tmp_path / "tall.npy"]))
    listener, remarks, _ = _listener()
    Files(paths).read(Preparation(8, 3, fit), listener)
    assert remarks == [
        f"not square: 4 of 6 pictures (e.g. {tmp_path / 'a' / 'wide' / '000.png'}); they are {words}; data.fit may be "
        "crop, pad or stretch"
    ]
    listener, remarks, _ = _listener()
    Files(tuple(sorted((tmp_path / "a" / "square").iterdir()))).read(Preparation(8, 3, fit), listener)
    assert remarks == []


def test_pictures_for_other_channels_are_refused_by_name_before_any_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", noise(0, channels=5))
    (tmp_path / "1.png").write_bytes(b"would not decode")
    with pytest.raises(DataError) as caught:
        Files((tmp_path / "0.npy", tmp_path / "1.png")).read(Preparation(8, 5), SILENT)
    assert str(caught.value) == (
        f"the space has in_channels 5, and {tmp_path / '1.png'} is a picture; give .npy arrays of (height, width, 5), "
        "or a space with in_channels 1 (grey) or 3 (RGB)"
    )


@pytest.mark.parametrize(("has", "wanted"), [(2, 3), (5, 4), (4, 1)])
def test_arrays_of_other_channels_are_refused_by_name(tmp_path: Path, has: int, wanted: int) -> None:
    np.save(tmp_path / "0.npy", noise(0, channels=has))
    with pytest.raises(DataError, match=rf"0\.npy: it has {counted(has, 'channel')}, and the network takes {wanted}"):
        Files((tmp_path / "0.npy",)).read(Preparation(8, wanted), SILENT)
    with pytest.raises(DataError, match=rf"an image of toys does not fit the space: it has {has} channels"):
        Arrays("toys", noise(0, channels=has)[None]).read(Preparation(8, wanted), SILENT)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"no array", b"PK\x03\x04"])
def test_a_damaged_array_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "0.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot decode .*0\.npy: .*; repair or remove it") as caught:
        Files((path,)).read(Preparation(8), SILENT)
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot decode .*0\.npy"):
        Files((tmp_path / "0.npy",)).read(Preparation(8), SILENT)


def test_the_first_file_that_fails_is_the_one_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": {"b": 30}})
    paths = tuple(sorted(tmp_path.rglob("*.png")))
    for path in paths[7:]:
        path.write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        Files(paths).read(Preparation(8), SILENT)
    assert str(paths[7]) in str(caught.value)


def test_what_pillow_warns_of_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, {"a": {"b": 3}})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    listener, remarks, _ = _listener()
    Files(tuple(sorted(tmp_path.rglob("*.png")))).read(Preparation(8), listener)
    (remark,) = remarks
    assert remark.startswith("Pillow warns of 3 pictures, first: Image size (64 pixels) exceeds limit of 40 pixels")
    # Twice as many are refused, as they may be meant to fill the memory.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"cannot decode .*000\.png: it is too large"):
        Files(tuple(sorted(tmp_path.rglob("*.png")))).read(Preparation(8), SILENT)


@pytest.mark.parametrize(
    ("count", "told"),
    [(1999, []), (2000, list(range(100, 2001, 100))), (2050, [*range(100, 2001, 100), 2050])],
)
def test_long_reading_is_followed_to_its_end(tmp_path: Path, count: int, told: list[int]) -> None:
    write_pictures(tmp_path, {"a": {"b": 1}})
    (path,) = tmp_path.rglob("*.png")
    listener, _, reports = _listener()
    Files((path,) * count).read(Preparation(8), listener, keep=False)
    assert reports == [("reading images", done, count) for done in told]


@pytest.mark.parametrize("channels", [1, 3, 12])
def test_the_memory_that_is_checked_grows_with_the_channels(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    # Twice ten images of 64×64.
    pages = 2 * 10 * channels
    for there, fits in ((pages, True), (pages - 1, False)):
        monkeypatch.setattr(
            os, "sysconf", lambda name, there=there: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": there}[name]
        )
        if fits:
            check_memory(10, Preparation(64, channels))
        else:
            with pytest.raises(DataError, match=rf"10 images of 64×64 in {counted(channels, 'channel')} need"):
                check_memory(10, Preparation(64, channels))


_FORMATS = [
    "PNG",
    "JPEG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "ICO",
    "PCX",
    "SGI",
    "JPEG2000",
    "DDS",
    "ICNS",
    "npy",
]


@functools.cache
def _encoded(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, noise(1, 16, 16))
    else:
        Image.fromarray(noise(1, 16, 16)).save(file, kind)
    return file.getvalue()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_FORMATS), st.data())
def test_a_damaged_file_is_read_or_refused_by_name_and_nothing_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(_encoded(kind))
    for at in data.draw(st.lists(st.integers(0, min(len(content), 200) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("1.npy" if kind == "npy" else "1.png")
        path.write_bytes(content)
        refused = None
        try:
            assert Files((path,)).read(Preparation(8), SILENT).shape == (1, 3, 8, 8)
        except DataError as error:
            refused = str(error)
        assert refused is None or (refused.startswith(f"cannot decode {path}: ") and "\n" not in refused)
