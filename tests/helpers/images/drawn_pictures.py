"""Picture files of every mode, format, depth, shape and orientation, drawn by hypothesis."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

#: EXIF's tag of the orientation, 1 to 8.
_ORIENTATION = 274

#: File formats that keep a mode; ``P+`` is a palette with transparent colours, ``L+`` grey with one transparent value.
FORMATS = {
    "1": ("png", "tif", "bmp"),
    "L": ("png", "jpg", "tif", "bmp", "webp", "pgm"),
    "L+": ("png",),
    "LA": ("png", "tif"),
    "P": ("png", "gif", "tif", "bmp"),
    "P+": ("png", "gif"),
    "RGB": ("png", "jpg", "tif", "bmp", "webp", "ppm", "jfif"),
    "RGBA": ("png", "tif", "webp"),
    "I;16": ("png", "tif"),
    "I;16+": ("png",),
    "I": ("tif",),
    "F": ("tif",),
    "CMYK": ("jpg", "tif"),
    "YCbCr": ("jpg", "tif"),
}

#: Formats that can say how the picture is to be turned.
TURNED = ("png", "jpg", "jfif", "tif", "webp")

#: Types of arrays, and the values in them.
ARRAYS = {
    "uint8": 255, "uint16": 65535, "uint16 of 12 bits": 4095, "int32": 100_000, "float32": 1.0, "float64": 255.0,
    "float32 that overshoots": 1.05, "bool": 1,
}  # fmt: skip


class Drawn(NamedTuple):
    """What a picture file holds, and a seed for its values."""

    mode: str
    suffix: str
    width: int
    height: int
    orientation: int
    seed: int

    def write(self, folder: Path) -> Path:
        """Write the file and return its path."""
        path = folder / f"picture.{self.suffix}"
        picture, options = self._picture()
        if self.suffix in TURNED:
            exif = Image.Exif()
            exif[_ORIENTATION] = self.orientation
            options["exif"] = exif
        picture.save(path, format="JPEG" if self.suffix == "jfif" else None, **options)
        return path

    def _picture(self) -> tuple[Image.Image, dict[str, Any]]:
        generator, shape = np.random.default_rng(self.seed), (self.height, self.width)
        mode = self.mode.rstrip("+")
        if mode in ("I;16", "I", "F"):
            values = _values({"I;16": "uint16", "I": "int32", "F": "float32"}[mode], shape, generator)
            return Image.fromarray(values), {"transparency": int(values[0, 0])} if self.mode == "I;16+" else {}
        bands = len(Image.new(mode, (1, 1)).getbands())
        pixels = generator.integers(0, 256, (*shape, bands), dtype=np.uint8)
        if mode == "1":
            return Image.fromarray(pixels[:, :, 0] > 127), {}
        if mode == "P":
            return self._palette(pixels[:, :, 0], generator)
        picture = Image.frombytes(mode, (self.width, self.height), pixels.tobytes())
        return picture, {"transparency": int(pixels[0, 0, 0])} if self.mode == "L+" else {}

    def _palette(self, pixels: NDArray[np.uint8], generator: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
        picture = Image.fromarray(pixels).convert("P")
        picture.putpalette(generator.integers(0, 256, 768).tolist())
        if self.mode == "P":
            return picture, {}
        return picture, {"transparency": generator.bytes(256) if self.suffix == "png" else int(pixels[0, 0])}


class DrawnArray(NamedTuple):
    """What an array file holds, and a seed for its values."""

    kind: str
    shape: tuple[int, ...]
    seed: int

    def write(self, folder: Path) -> Path:
        """Write the file and return its path."""
        path = folder / "array.npy"
        np.save(path, _values(self.kind, self.shape, np.random.default_rng(self.seed)))
        return path


def _values(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    values = generator.random(shape) * ARRAYS[kind]
    dtype = np.dtype(kind.split(maxsplit=1)[0])
    return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


_SIDES = st.one_of(st.integers(1, 3), st.integers(4, 40), st.sampled_from((8, 16)))
_SEEDS = st.integers(0, 2**31)


@st.composite
def pictures(draw: st.DrawFn) -> Drawn:
    """Draw a picture file."""
    mode = draw(st.sampled_from(sorted(FORMATS)))
    suffix = draw(st.sampled_from(FORMATS[mode]))
    return Drawn(mode, suffix, draw(_SIDES), draw(_SIDES), draw(st.integers(1, 8)), draw(_SEEDS))


@st.composite
def array_files(draw: st.DrawFn, channels: st.SearchStrategy[int]) -> DrawnArray:
    """Draw an array file of (height, width) or (height, width, channels)."""
    plain = (draw(_SIDES), draw(_SIDES))
    count = draw(channels)
    shape = plain if count == 1 and draw(st.booleans()) else (*plain, count)
    return DrawnArray(draw(st.sampled_from(sorted(ARRAYS))), shape, draw(_SEEDS))
