"""A picture becomes the same pixels on the device as in training, and the same input of the network."""

import json
import struct
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images.drawn_pictures import FORMATS, TURNED, Drawn, DrawnArray, array_files, pictures
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fedpareto.search.export.deploy import DeployError, Description, network_input, read_description, read_pixels
from fedpareto.training.config.data import Fit
from fedpareto.training.data.batches import prepare
from fedpareto.training.data.files.preparation import PictureError, Preparation, read_picture
from fedpareto.training.data.images import Normalisation

_FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")


def _description(preparation: Preparation, resolution: int | None = None) -> Description:
    metadata: dict[str, Any] = {
        "preparation": preparation.to_json(),
        "resolution": resolution or preparation.side,
        "normalisation": {"mean": [0.25] * preparation.channels, "std": [0.5] * preparation.channels},
        "classes": ["a", "b"],
    }
    return read_description({name: json.dumps(value) for name, value in metadata.items()}, Path("subnet.onnx"))


def _check_same(path: Path, preparation: Preparation) -> NDArray[np.uint8]:
    pixels = read_pixels(path, _description(preparation))
    np.testing.assert_array_equal(pixels, read_picture(path, preparation))
    assert pixels.shape == (preparation.side, preparation.side, preparation.channels)
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize(("mode", "suffix"), [(mode, suffix) for mode in FORMATS for suffix in FORMATS[mode]])
def test_pictures_of_every_mode_and_format_are_the_same_pixels(tmp_path: Path, mode: str, suffix: str) -> None:
    for channels, fit, (width, height) in product((1, 3), _FITS, ((37, 18), (9, 23), (8, 8))):
        drawn = Drawn(mode, suffix, width, height, orientation=6, seed=width)
        _check_same(drawn.write(tmp_path), Preparation(8, channels, fit))


def test_drawn_pictures_are_the_same_pixels(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pictures")

    @given(pictures(), st.sampled_from((1, 8, 15, 32)), st.sampled_from((1, 3)), st.sampled_from(_FITS))
    @runs(150)
    def check(drawn: Drawn, side: int, channels: int, fit: Fit) -> None:
        _check_same(drawn.write(folder), Preparation(side, channels, fit))

    check()


def test_drawn_arrays_are_the_same_pixels(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    preparations = st.builds(Preparation, st.sampled_from((1, 8, 15)), st.just(5), st.sampled_from(_FITS))

    @given(array_files(st.sampled_from((1, 3, 5))), preparations, st.sampled_from((1, 3)))
    @runs(100)
    def check(drawn: DrawnArray, preparation: Preparation, colours: int) -> None:
        if drawn.shape[-1] != 5 or len(drawn.shape) == 2:
            preparation = Preparation(preparation.side, colours, preparation.fit)
        _check_same(drawn.write(folder), preparation)

    check()


@pytest.mark.parametrize("largest", [0.5, 1.0, 1.001, 1.2, 2.0, 15.9, 200.0, 255.0, 4000.0, 65535.0, 1e6])
@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_floats_of_any_range_keep_their_pictures(tmp_path: Path, suffix: str, largest: float) -> None:
    ramp, path = np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8), tmp_path / f"ramp.{suffix}"
    np.save(path, ramp) if suffix == "npy" else Image.fromarray(ramp).save(path)
    pixels = _check_same(path, Preparation(8, 1))
    assert pixels.max() >= 127
    assert len(np.unique(pixels)) == 64


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("pages", "fit"), [(2, "crop"), (5, "pad"), (13, "stretch")])
def test_pages_of_a_tiff_file_are_bands(tmp_path: Path, depth: type[np.generic], pages: int, fit: Fit) -> None:
    values = np.linspace(0, 1 if depth == np.float32 else np.iinfo(depth).max, pages * 9 * 8)  # type: ignore[type-var]
    bands = values.reshape(pages, 9, 8).astype(depth)
    first, *others = [Image.fromarray(band) for band in bands]
    first.save(tmp_path / "bands.tif", save_all=True, append_images=others)
    np.savez(tmp_path / "bands.npz", bands.transpose(1, 2, 0))
    preparation = Preparation(6, pages, fit)
    pixels = _check_same(tmp_path / "bands.tif", preparation)
    np.testing.assert_array_equal(pixels, _check_same(tmp_path / "bands.npz", preparation))
    assert (np.diff(pixels.astype(int).mean(axis=(0, 1))) > 0).all()


def test_four_samples_of_a_tiff_file_are_bands_of_a_network_that_takes_four(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 4)).astype(np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "near-infrared.tif")
    np.testing.assert_array_equal(_check_same(tmp_path / "near-infrared.tif", Preparation(6, 4)), pixels)


def test_a_file_of_two_arrays_and_pages_of_two_sizes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 4, 2)), b=np.zeros((4, 4, 2)))
    first, second = (Image.new("L", (side, side)) for side in (4, 5))
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    for name, words in (("two.npz", "it holds 2 arrays; a file holds one image"), ("two.tif", "its pages have differ")):
        with pytest.raises(PictureError, match=words):
            read_picture(tmp_path / name, Preparation(4, 2))
        with pytest.raises(DeployError, match=words):
            read_pixels(tmp_path / name, _description(Preparation(4, 2)))


@pytest.mark.parametrize("suffix", TURNED)
def test_every_orientation_is_turned_upright(tmp_path: Path, suffix: str) -> None:
    seen = set()
    for orientation in range(1, 9):
        path = Drawn("RGB", suffix, 24, 24, orientation, seed=1).write(tmp_path)
        seen.add(_check_same(path, Preparation(24)).tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize(("side", "resolution"), [(32, 20), (32, 31), (16, 8), (10, 13), (64, 48), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_other_resolutions_are_resized_as_in_training(side: int, resolution: int, channels: int) -> None:
    generator = np.random.default_rng(side)
    pixels = generator.integers(0, 256, (side, side, channels), dtype=np.uint8)
    found = network_input(pixels, _description(Preparation(side, channels), resolution))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = prepare(images, resolution, Normalisation((0.25,) * channels, (0.5,) * channels))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


def _damaged(path: Path, cut: float, at: float, byte: int) -> Path:
    """Cut a file short, or change a byte of it."""
    content = bytearray(path.read_bytes())
    if cut < 1:
        content = content[: int(cut * len(content))]
    if content:
        content[int(at * (len(content) - 1))] ^= byte
    path.write_bytes(bytes(content))
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_refused_or_read_by_both_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    files = st.one_of(pictures(), array_files(st.sampled_from((1, 3))))
    shares = st.floats(0, 1)

    @given(files, st.one_of(st.just(1.0), shares), shares, st.integers(1, 255))
    @runs(150)
    def check(drawn: Drawn | DrawnArray, cut: float, at: float, byte: int) -> None:
        path, preparation = _damaged(drawn.write(folder), cut, at, byte), Preparation(8)
        try:
            expected = read_picture(path, preparation)
        except PictureError:
            with pytest.raises(DeployError) as caught:
                read_pixels(path, _description(preparation))
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
        else:
            np.testing.assert_array_equal(read_pixels(path, _description(preparation)), expected)

    check()


@given(st.integers(1, 500), st.sampled_from((1, 3, 7)), st.sampled_from(_FITS))
@runs(20)
def test_a_description_reads_back(side: int, channels: int, fit: Fit) -> None:
    preparation = Preparation(side, channels, fit)
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation


_WHOLE = Preparation(8).to_json()
_OTHERS: tuple[Any, ...] = (None, "other", -1, [], {})


@pytest.mark.parametrize(
    "description",
    [
        None, [], "crop", {},
        *({name: value for name, value in _WHOLE.items() if name != gone} for gone in _WHOLE),
        *(_WHOLE | {name: other} for name in _WHOLE for other in _OTHERS),
        _WHOLE | {"new": 1}, _WHOLE | {"side": True}, _WHOLE | {"side": 8.0},
    ],
)  # fmt: skip
def test_another_description_is_refused(description: Any) -> None:
    with pytest.raises(PictureError):
        Preparation.from_json(description)


def _write_16_bits(path: Path, pixels: NDArray[np.uint16], kind: int) -> Path:
    """Write a PNG of 16 bits a band, which Pillow reads and does not write; ``kind`` is its colour type."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(("kind", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_read_or_refused_by_name_and_never_nearly_black(
    tmp_path: Path, kind: int, bands: int
) -> None:
    shares = np.random.default_rng(0).random((9, 9, bands))
    preparation = Preparation(8)
    whole = _write_16_bits(tmp_path / "whole.png", (shares * 65535).astype(np.uint16), kind)
    assert _check_same(whole, preparation).max() > 200
    dark = _write_16_bits(tmp_path / "dark.png", (shares * 4095).astype(np.uint16), kind)
    with pytest.raises(PictureError, match="12 at the most are used; write it with 8 bits"):
        read_picture(dark, preparation)
    with pytest.raises(DeployError, match="12 at the most are used; write it with 8 bits"):
        read_pixels(dark, _description(preparation))


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_what_overshoots_white_a_little_stays_on_its_scale(tmp_path: Path, white: int, kind: type) -> None:
    ramp: NDArray[Any] = np.linspace(0, white * 1.02, 64).reshape(8, 8).astype(kind)
    np.save(tmp_path / "ramp.npy", ramp)
    pixels = _check_same(tmp_path / "ramp.npy", Preparation(8, 1))
    assert np.abs(pixels[:, :, 0] - np.minimum(ramp * 255 / white, 255)).max() <= 0.51
