"""Preparation of images: a picture or an array of any size, depth and colour becomes pixels of one shape.

Training, evaluation, export and the deployed example all follow this one description. Its steps, in this order:

1. *Orientation*: the picture is turned as its EXIF says.
2. *Depth*: values of more than 8 bits, and floats, are scaled so that white is 255 (``white_of``).
3. *Background*: transparent parts show white.
4. *Channels*: one is the grey of Pillow's ``L``, three are RGB; any other number comes from arrays that have it, or
   from TIFF files whose bands (of one page after another) are as many.
5. *Fit*: a picture that is no square is cropped to its centre, padded with white, or stretched.
6. *Resize*: Pillow's bicubic filter, band by band, with 8 bits.
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.data import Fit

Pixels = NDArray[np.uint8]

#: What shows through transparent pixels, and what pads.
BACKGROUND = 255

_WHITE = np.uint8(BACKGROUND)

#: Largest values of the usual depths: 8, 12 and 16 bits.
DEPTHS = (255, 4095, 65535)

#: How far values may go beyond a depth and still be on its scale: resampled pictures overshoot white a little.
OVERSHOOT = 1.0625

#: Upper 8 bits of 12 in 16.
_LOST = DEPTHS[1] >> 8

#: Floats up to this one are on a scale of their own and not on one of whole numbers: a picture of 0..1 that overshoots
#: a little would be all black on that of bytes.
FLOATS = 16

#: Files that hold one array (height, width) or (height, width, channels) and not a picture; the first kind is written.
ARRAY_SUFFIX = ".npy"
ARRAY_SUFFIXES = (ARRAY_SUFFIX, ".npz")

#: Pictures that may have any number of bands: several samples a pixel, several pages, or both.
BAND_SUFFIXES = (".tif", ".tiff")


#: Channels that any picture gives: grey, and RGB.
COLOURS = (1, 3)

#: What the bytes of an ``.npy`` file begin with, and what Pillow calls the format of those pictures.
_ARRAY_MAGIC, _BANDED = b"\x93NUMPY", "TIFF"


class PictureError(ValueError):
    """Error of a picture or array that cannot be prepared; the message says why."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Form of all pictures of a run: their side, their channels and how they are made square.

    Attributes:
        side: height and width in pixels.
        channels: 1 for grey, 3 for RGB, or the number of the arrays' channels.
        fit: treatment of pictures that are no squares.
    """

    side: int
    channels: int = 3
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        for name in ("side", "channels"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise PictureError(f"{name} is {getattr(self, name)!r}; it must be a whole number from 1")
        if self.fit not in get_args(Fit):
            raise PictureError(f"fit is {self.fit!r}; it must be one of {', '.join(get_args(Fit))}")

    def to_json(self) -> dict[str, Any]:
        """Return the whole description as JSON values, for files that are used elsewhere.

        ``resolution_filter`` is the filter of ``batches.py``, which resizes normalised pixels to an architecture's
        resolution.
        """
        return {
            **dataclasses.asdict(self),
            "orientation": "exif",
            "depths": list(DEPTHS),
            "floats": FLOATS,
            "overshoot": OVERSHOOT,
            "background": BACKGROUND,
            "filter": "bicubic",
            "resolution_filter": "bilinear",
        }

    @classmethod
    def from_json(cls, description: object) -> "Preparation":
        """Return the preparation that ``to_json`` described.

        Raises:
            PictureError: it does not describe a preparation that this version does.
        """
        if not isinstance(description, Mapping):
            raise PictureError("it is no description of how pictures are prepared")
        fields: dict[str, Any] = {field.name: description.get(field.name) for field in dataclasses.fields(cls)}
        preparation = cls(**fields)
        if preparation.to_json() != description:
            raise PictureError("it describes another way to prepare pictures than this version's")
        return preparation


def read_picture(path: Path, preparation: Preparation) -> Pixels:
    """Return the pixels of a picture or ``.npy`` file, shape (side, side, channels).

    Raises:
        PictureError: it cannot be read, or its content cannot be prepared.
    """
    return read_sized(path, preparation)[0]


def read_sized(source: Path | bytes, preparation: Preparation) -> tuple[Pixels, tuple[int, int]]:
    """Return the pixels of a file, or of the content of one, as ``read_picture`` does, and its own (width, height).

    Raises:
        PictureError: it cannot be read, or its content cannot be prepared.
    """
    try:
        if _is_array(source):
            return _sized(_read_array(source), preparation)
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as picture:
            if preparation.channels not in COLOURS and picture.format == _BANDED:
                return _sized(_bands(picture), preparation)
            return prepare_picture(picture, preparation), picture.size
    except PictureError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PictureError(f"it is too large: {error}") from error
    except Exception as error:
        # Readers of damaged files raise whatever they stumble over: struct.error, KeyError, AssertionError, …
        raise PictureError(str(error) or type(error).__name__) from error


def check_readable(content: bytes) -> None:
    """Refuse the content of a picture or ``.npy`` file that cannot be decoded.

    Raises:
        PictureError: it cannot; the message says why.
    """
    try:
        if _is_array(content):
            _read_array(content)
            return
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except Exception as error:
        # Readers of damaged files raise whatever they stumble over.
        raise PictureError(str(error) or type(error).__name__) from error


def _sized(array: NDArray[Any], preparation: Preparation) -> tuple[Pixels, tuple[int, int]]:
    return prepare_array(array, preparation), (array.shape[1], array.shape[0])


def _is_array(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source.startswith(_ARRAY_MAGIC)
    return source.suffix.lower() in ARRAY_SUFFIXES


def _read_array(source: Path | bytes) -> NDArray[Any]:
    if isinstance(source, Path) and source.suffix.lower() != ARRAY_SUFFIX:
        with np.load(source, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise PictureError(f"it holds {counted(len(archive.files), 'array')}; a file holds one image")
            only: NDArray[Any] = archive[archive.files[0]]
            return only
    # ``np.load`` would take archives of arrays, too.
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _bands(picture: Image.Image) -> NDArray[Any]:
    """All bands of a picture, page after page, (height, width, bands)."""
    pages = []
    for page in range(getattr(picture, "n_frames", 1)):
        picture.seek(page)
        values = np.asarray(picture)
        pages.append(values[:, :, None] if values.ndim == 2 else values)
    kinds = {(page.shape[:2], page.dtype) for page in pages}
    if len(kinds) > 1:
        raise PictureError("its pages have different sizes or depths; those of one image are alike")
    return np.concatenate(pages, axis=2)


def prepare_picture(picture: Image.Image, preparation: Preparation) -> Pixels:
    """Return the pixels of a picture, shape (side, side, channels).

    Raises:
        PictureError: its values have no known range, or the channels asked for are not a picture's.
    """
    if preparation.channels not in COLOURS:
        raise PictureError(
            f"it is a picture, and the network takes {counted(preparation.channels, 'channel')}; "
            f"give {ARRAY_SUFFIX} arrays of (height, width, {preparation.channels})"
        )
    _refuse_lost_depth(picture)
    return _fitted(_colour(_on_white(_of_8_bits(ImageOps.exif_transpose(picture)))), preparation)


def prepare_array(array: NDArray[Any], preparation: Preparation) -> Pixels:
    """Return the pixels of an array (height, width) or (height, width, channels), shape (side, side, channels).

    An array of one channel is grey, one of three is RGB; they are converted where the network needs the other.

    Raises:
        PictureError: it has another shape, type or number of channels, or its values have no known range.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise PictureError(f"it has shape {array.shape}; it must be (height, width) or (height, width, channels)")
    pixels, channels = to_8_bits(array), array.shape[2]
    if channels == preparation.channels:
        bands = [Image.fromarray(np.ascontiguousarray(pixels[:, :, band])) for band in range(channels)]
        return np.concatenate([_fitted(band, dataclasses.replace(preparation, channels=1)) for band in bands], axis=2)
    if {channels, preparation.channels} == {1, 3}:
        return _fitted(Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels), preparation)
    raise PictureError(f"it has {counted(channels, 'channel')}, and the network takes {preparation.channels}")


def white_of(array: NDArray[Any]) -> float:
    """Return the value that is white: the least of 255, 4095 and 65535 that holds all values, else the largest value.

    A depth also holds values beyond it by no more than ``OVERSHOOT``. White is 255 for bytes, 1 for truth values and
    for floats up to 1, and the largest value for floats from there to ``FLOATS``. The bits that a file declares do not
    decide, because the values in 16 bits are often of 12.

    Raises:
        PictureError: a value is negative or not finite, or the values are no numbers.
    """
    if array.dtype == np.uint8:
        return DEPTHS[0]
    if array.dtype.kind not in "buif":
        raise PictureError(f"its values are {array.dtype}; they must be whole numbers or floats")
    least, most = float(array.min()), float(array.max())
    if not (least >= 0 and np.isfinite(most)):
        raise PictureError(f"its values go from {least:g} to {most:g}, a range that is not known; scale them to 0..1")
    if array.dtype.kind in "bf" and most <= FLOATS:
        return max(1.0, most)
    return next((float(depth) for depth in DEPTHS if most <= depth * OVERSHOOT), most)


def to_8_bits(array: NDArray[Any], white: float | None = None) -> Pixels:
    """Scale values so that white is 255, rounded; values beyond white become white.

    ``white`` is what ``white_of`` finds in the array, where it is left out.

    Raises:
        PictureError: their range is not known.
    """
    found = white_of(array)
    if array.dtype == np.uint8:
        return array
    scale = 255 / (found if white is None else white)
    return np.rint(array.astype(np.float64) * scale).clip(max=255).astype(np.uint8)


def _refuse_lost_depth(picture: Image.Image) -> None:
    """Refuse a picture of 16 bits a band that uses 12 or fewer: of colours Pillow reads only the upper 8 bits."""
    # Asked before the picture is loaded, which forgets how it was coded.
    if picture.mode not in ("LA", "RGB", "RGBA") or not any(
        ";16" in str(tile[3]) for tile in getattr(picture, "tile", ())
    ):
        return
    colours = picture.getextrema()[: 1 if picture.mode == "LA" else 3]
    if max(int(most) for _, most in colours) <= _LOST:  # type: ignore[misc]
        raise PictureError("its colours have 16 bits of which 12 at the most are used; write it with 8 bits")


def _of_8_bits(picture: Image.Image) -> Image.Image:
    """Return a picture with bands of 8 bits; Pillow's own conversions clip deeper bands."""
    if picture.mode.split(";")[0] not in ("I", "F"):
        return picture
    values, transparent = np.asarray(picture), picture.info.get("transparency")
    pixels = to_8_bits(values)
    # The value that is transparent has the depth of the file, so it can only be found before it is scaled.
    return Image.fromarray(pixels if transparent is None else np.where(values == transparent, _WHITE, pixels))


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    opaque = Image.new("RGBA", picture.size, (BACKGROUND,) * 4)
    return Image.alpha_composite(opaque, _converted(picture, "RGBA"))


def _colour(picture: Image.Image) -> Image.Image:
    return picture if picture.mode in ("L", "RGB") else _converted(picture, "RGB")


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    try:
        return picture.convert(mode)
    except ValueError as error:
        raise PictureError(f"its colours are {picture.mode}; convert it to RGB") from error


def _fitted(picture: Image.Image, preparation: Preparation) -> Pixels:
    """Return the pixels of a picture of mode L or RGB, with the channels, fit and size of ``preparation``."""
    picture = picture.convert("L" if preparation.channels == 1 else "RGB")
    width, height = picture.size
    side, box = (preparation.side,) * 2, (0, 0, width, height)
    if preparation.fit == "crop":
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        box = (left, top, left + short, top + short)
    elif preparation.fit == "pad" and width != height:
        long = max(width, height)
        padded = Image.new(picture.mode, (long, long), (BACKGROUND,) * len(picture.getbands()))
        padded.paste(picture, ((long - width) // 2, (long - height) // 2))
        picture, box = padded, (0, 0, long, long)
    if picture.size != side:
        picture = picture.resize(side, Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture).reshape(preparation.side, preparation.side, preparation.channels)
