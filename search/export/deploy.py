"""Script that classifies a picture with an exported subnet, on a device with numpy, onnxruntime and Pillow alone.

    python deploy.py subnet.onnx PICTURE [--verify PUBLIC_KEY]

The model's metadata say how a picture becomes the network's input; this file does it as training did. Pictures are
whatever Pillow reads, and ``.npy`` or ``.npz`` arrays (height, width) or (height, width, channels) of numbers.
Without Pillow it reads such arrays and binary ``.ppm`` files that have the network's size and channels already.
With ``--verify`` the model is used only if the key has signed it; that needs the package cryptography, and
``signature.json`` and ``digests.json`` beside the model.
"""

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

#: Names of the model's input and output.
INPUT, OUTPUT = "images", "logits"

#: Words of a description that this file can follow, by field.
_UNDERSTOOD = {
    "fit": ("crop", "pad", "stretch"),
    "filter": ("bicubic",),
    "orientation": ("exif",),
    "resolution_filter": ("bilinear",),
}


#: Types of the fields of a description, or of the items of those that are lists; and their range.
_CHECKS: Mapping[str, tuple[tuple[type, ...], Callable[[Any], bool]]] = {
    **dict.fromkeys(("side", "channels", "resolution", "depths", "floats"), ((int,), lambda value: value >= 1)),
    "background": ((int,), lambda value: 0 <= value <= 255),
    "overshoot": ((int, float), lambda value: 1 <= value < math.inf),
    "mean": ((int, float), math.isfinite),
    "std": ((int, float), lambda value: 0 < value < math.inf),
    **dict.fromkeys(("fit", "classes"), ((str,), bool)),
}
_LISTS = ("depths", "mean", "std", "classes")


class DeployError(Exception):
    """A model or a picture that cannot be used; the message is one line for people."""


@dataclasses.dataclass(frozen=True)
class Description:
    """Description of a network's input, with the preparation of pictures, and of its outputs.

    Attributes:
        side: height and width in pixels that pictures are brought to.
        channels: 1 for grey, 3 for RGB, or those of the arrays.
        fit: treatment of pictures that are not square: ``crop``, ``pad`` or ``stretch``.
        background: value that shows through transparent pixels, and that pads.
        depths: values that may be white, in rising order.
        floats: floats up to this have their largest value as white, at least 1.
        overshoot: most by which values may exceed a depth and still be on its scale.
        resolution: height and width of the network's input.
        mean: mean of each channel, of pixels scaled to 0..1.
        std: standard deviation of each channel.
        classes: class names in the order of the outputs.
    """

    side: int
    channels: int
    fit: str
    background: int
    depths: tuple[int, ...]
    floats: int
    overshoot: float
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def main(arguments: list[str]) -> int:
    """Print the three likeliest classes of a picture and how long the network took; return the exit code."""
    # A terminal that lacks a letter of a class name shows its code.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        files, key = _with_key(arguments)
        if len(files) != 2:
            raise DeployError(f"give two files, a model and a picture: deploy.py SUBNET.onnx PICTURE; got {len(files)}")
        _classify(Path(files[0]), Path(files[1]), key)
    except DeployError as error:
        print(f"deploy: error: {error}", file=sys.stderr)
        return 2
    return 0


def _with_key(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Return the arguments without ``--verify PUBLIC_KEY``, and the key."""
    if "--verify" not in arguments:
        return arguments, None
    place = arguments.index("--verify")
    if not "".join(arguments[place + 1 : place + 2]).strip():
        raise DeployError("--verify names no file of a public key")
    return [*arguments[:place], *arguments[place + 2 :]], Path(arguments[place + 1])


def _classify(model: Path, picture: Path, key: Path | None) -> None:
    session, description = load_model(model, key=key)
    images = network_input(read_pixels(picture, description), description)
    started = time.perf_counter()
    (logits,) = session.run([OUTPUT], {INPUT: images})
    milliseconds = (time.perf_counter() - started) * 1000
    shares = np.exp(logits[0] - logits[0].max())
    shares /= shares.sum()
    best = shares.argsort()[::-1][:3]
    lines = [f"{shares[number]:7.2%}  {_printable(description.classes[number])}" for number in best]
    _print("\n".join([*lines, f"{milliseconds:.2f} ms"]))


def _check_digest(path: Path, content: bytes) -> None:
    """Refuse a model that has changed since it was written, if the digests of its folder were copied with it."""
    digests = path.with_name("digests.json")
    try:
        record = json.loads(digests.read_bytes())
        if not isinstance(record, dict) or record.get("format") != "fedpareto-digests":
            return
        allowed = record["files"].get(path.name, ())
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeployError(f"{digests} is damaged; copy it again, or remove it") from None
    if allowed and hashlib.sha256(content).hexdigest() not in allowed:
        raise DeployError(f"{path} is damaged (its digest does not fit); copy it again")


def check_signed(path: Path, content: bytes, key: Path) -> None:
    """Refuse a model that the holder of a key has not signed.

    Args:
        path: the model's file, with the digests and the signature of its folder beside it.
        content: the bytes of the model.
        key: PEM file of the public key.

    Raises:
        DeployError: it is not signed, by another key or as another file; or the key cannot be read.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - only who verifies
    except ImportError:
        raise DeployError("cryptography is missing: pip install cryptography") from None
    try:
        public: Any = load_pem_public_key(key.read_bytes())
        trusted = public.public_bytes_raw()
    except Exception as error:
        raise DeployError(f"cannot read the public key {key}: {_line(error)}") from None
    try:
        signature = json.loads(path.with_name("signature.json").read_bytes())
        files = json.loads(path.with_name("digests.json").read_bytes())["files"]
        statement = {"kind": "subnet", "files": files, "beside": signature["beside"]}
        text = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
        if bytes.fromhex(signature["public_key"]) != trusted:
            raise ValueError("another key signed it")
        public.verify(bytes.fromhex(signature["signature"]), b"fedpareto folder signature 1\0" + text)
        if files[path.name] != [hashlib.sha256(content).hexdigest()]:
            raise ValueError("another file was signed")
    except Exception as error:
        raise DeployError(f"{path} is not signed with {key} ({_line(error)}); copy it again with its folder") from None


def load_model(path: Path, threads: int = 0, key: Path | None = None) -> tuple[Any, Description]:
    """Load a model: return its onnxruntime session and the description of its input.

    Args:
        path: the ``.onnx`` file.
        threads: CPU threads; onnxruntime's own choice when 0.
        key: PEM file of the public key that must have signed it; None where it need not be signed.

    Raises:
        DeployError: it is missing, no ONNX file, or not one that ``search-subnet --export onnx`` wrote.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(f"cannot read the model {path}: {_line(error)}") from None
    _check_digest(path, content)
    if key is not None:
        check_signed(path, content, key)
    try:
        import onnxruntime  # noqa: PLC0415 - reading pictures does not need it
    except ImportError:
        raise DeployError("onnxruntime is missing: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What it logs is also in its errors, or about the insides of models.
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DeployError(f"cannot read {path} as an ONNX model: {_line(error)}") from None
    description = read_description(session.get_modelmeta().custom_metadata_map, path)
    side, ends = description.resolution, (*session.get_inputs(), *session.get_outputs())
    found, expected = [(end.name, end.shape[1:]) for end in ends], (description.channels, side, side)
    if found != [(INPUT, [*expected]), (OUTPUT, [len(description.classes)])]:
        raise DeployError(f"{path} is not the network that its metadata describe; export it again")
    return session, description


def read_description(metadata: Mapping[str, str], model: Path) -> Description:
    """Read the description of a model's input from its metadata, JSON texts by name.

    Raises:
        DeployError: they are missing, damaged, or of another program or version.
    """
    if not {"classes", "normalisation"} <= set(metadata):
        raise DeployError(f"{model} has no metadata of a subnet; write it with search-subnet --export onnx")
    if "preparation" not in metadata:
        raise DeployError(f"{model} does not say how pictures are prepared; export it again with this version")
    try:
        fields = {name: json.loads(metadata[name]) for name in ("resolution", "normalisation", "classes")}
        fields |= fields.pop("normalisation") | json.loads(metadata["preparation"])
        description = Description(**{name: _checked(name, fields[name]) for name in _CHECKS})
        if not len(description.mean) == len(description.std) == description.channels:
            raise ValueError("normalisation and channels differ")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DeployError(f"the metadata of {model} are damaged ({_line(error)}); export it again") from None
    for name, words in _UNDERSTOOD.items():
        if fields.get(name) not in words:
            known = f"knows {', '.join(words)}; take the deploy.py that came with the model"
            raise DeployError(f"{model} asks for {name} {fields.get(name)!r}, and this file {known}")
    return description


def _checked(name: str, value: Any) -> Any:
    """Return a value of a description, lists as tuples; refuse one of another type or out of its range."""
    kinds, fits = _CHECKS[name]
    values = value if name in _LISTS else [value]
    if not isinstance(values, list) or not values or not all(type(item) in kinds and fits(item) for item in values):
        raise ValueError(f"{name} is {str(value)[:40]}")
    return tuple(values) if name in _LISTS else value


def network_input(pixels: Pixels, description: Description) -> NDArray[np.float32]:
    """Return pixels (side, side, channels) normalised, at the network's resolution: (1, channels, height, width)."""
    mean, std = (np.array(values, np.float32) * np.float32(255) for values in (description.mean, description.std))
    bands = np.moveaxis((pixels.astype(np.float32) - mean) / std, 2, 0)
    size = (description.resolution,) * 2
    if bands.shape[1:] != size:
        image = _pillow(f"resize {description.side}×{description.side} pixels").Image
        bands = np.stack(
            [
                np.asarray(image.fromarray(band).resize(size, image.Resampling.BILINEAR))
                for band in np.ascontiguousarray(bands)
            ]
        )
    return np.ascontiguousarray(bands[None], dtype=np.float32)


def read_pixels(path: Path, description: Description) -> Pixels:
    """Return the pixels of a picture or ``.npy`` file as training has them, shape (side, side, channels).

    Raises:
        DeployError: it is missing, cannot be read, or holds what cannot be prepared.
    """
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is either an error later on or of no consequence.
            warnings.simplefilter("ignore")
            return _fitted(_in_channels(_decoded(path, description), description), description)
    except DeployError as error:
        raise DeployError(f"cannot use {path}: {error}") from None
    # Readers of damaged files let many kinds of errors out.
    except Exception as error:
        raise DeployError(f"cannot read the picture {path}: {_line(error)}") from None


def _decoded(path: Path, description: Description) -> Pixels:
    """Return the pixels of a file, (height, width, channels) of its own."""
    if path.suffix.lower() in (".npy", ".npz"):
        return _to_8_bits(_with_channels(_read_array(path)), description)
    if path.suffix.lower() == ".ppm" and not _has_pillow():
        return _read_ppm(path.read_bytes())
    pillow = _pillow(f"read {path.suffix or 'such'} files")
    if description.channels not in (1, 3) and path.suffix.lower() in (".tif", ".tiff"):
        with pillow.Image.open(path) as picture:
            return _to_8_bits(_bands(picture), description)
    if description.channels not in (1, 3):
        shape = f"(height, width, {description.channels})"
        raise DeployError(
            f"it is a picture, and the network takes {description.channels} channels; give .npy arrays of {shape}"
        )
    with pillow.Image.open(path) as picture:
        _refuse_lost_depth(picture)
        return _with_channels(_decoded_picture(pillow.ImageOps.exif_transpose(picture), description))


def _read_array(path: Path) -> Any:
    """Return the array of a ``.npy`` file, or the only one of a ``.npz`` file."""
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise DeployError(f"it holds {len(archive.files)} arrays; a file holds one image")
            return archive[archive.files[0]]
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _bands(picture: Any) -> Any:
    """Return all bands of a Pillow picture, page after page, (height, width, bands)."""
    pages = []
    for page in range(getattr(picture, "n_frames", 1)):
        picture.seek(page)
        pages.append(_with_channels(np.asarray(picture)))
    if len({(page.shape[:2], page.dtype) for page in pages}) > 1:
        raise DeployError("its pages have different sizes or depths; those of one image are alike")
    return np.concatenate(pages, axis=2)


def _refuse_lost_depth(picture: Any) -> None:
    """Refuse colours of 12 bits in 16: Pillow gives the upper 8 alone, which are nearly black."""
    if picture.mode not in ("LA", "RGB", "RGBA") or not any(
        ";16" in str(tile[3]) for tile in getattr(picture, "tile", ())
    ):
        return
    colours = picture.getextrema()[: 1 if picture.mode == "LA" else 3]
    if max(most for _, most in colours) <= 4095 >> 8:
        raise DeployError("its colours have 16 bits of which 12 at the most are used; write it with 8 bits")


def _decoded_picture(picture: Any, description: Description) -> Pixels:
    """Return the pixels of a Pillow picture: (height, width) of grey, (height, width, 3) of anything else."""
    transparent = picture.info.get("transparency")
    if picture.mode.split(";")[0] in ("I", "F"):
        values = np.asarray(picture)
        pixels = _to_8_bits(values, description)
        return (
            pixels if transparent is None else np.where(values == transparent, np.uint8(description.background), pixels)
        )
    if picture.has_transparency_data:
        image = _pillow("read transparent pictures").Image
        white = image.new("RGBA", picture.size, (description.background,) * 3 + (255,))
        picture = image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise DeployError(f"it has shape {array.shape}; it must be (height, width) or (height, width, channels)")
    return array


def _to_8_bits(array: NDArray[Any], description: Description) -> Pixels:
    """Return values scaled so that white is 255, rounded; white is the least depth that holds all values."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise DeployError(f"its values are {array.dtype}; they must be whole numbers or floats")
    least, most = float(array.min()), float(array.max())
    if not (least >= 0 and math.isfinite(most)):
        raise DeployError(f"its values go from {least:g} to {most:g}, a range that is not known; scale them to 0..1")
    if array.dtype.kind in "bf" and most <= description.floats:
        white = max(1.0, most)
    else:
        white = next((float(depth) for depth in description.depths if most <= depth * description.overshoot), most)
    return np.rint(array.astype(np.float64) * (255 / white)).clip(max=255).astype(np.uint8)


def _in_channels(pixels: Pixels, description: Description) -> Pixels:
    """Return pixels with the network's channels: grey is repeated, RGB becomes grey."""
    found, wanted = pixels.shape[2], description.channels
    if found == wanted:
        return pixels
    if (found, wanted) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    if (found, wanted) == (3, 1):
        grey = _pillow("turn colour into grey").Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
        return np.asarray(grey)[:, :, None]
    raise DeployError(f"it has {found} channels, and the network takes {wanted}")


def _fitted(pixels: Pixels, description: Description) -> Pixels:
    """Return pixels as a square of the description's side."""
    height, width = pixels.shape[:2]
    side, box = (description.side,) * 2, (0, 0, width, height)
    if description.fit == "crop":
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        box = (left, top, left + short, top + short)
    elif description.fit == "pad" and width != height:
        long = max(width, height)
        left, top = (long - width) // 2, (long - height) // 2
        padded = np.full((long, long, pixels.shape[2]), description.background, np.uint8)
        padded[top : top + height, left : left + width] = pixels
        pixels, box = padded, (0, 0, long, long)
    if pixels.shape[:2] == side:
        return pixels
    image = _pillow(f"resize {width}×{height} pixels for a network of {side[0]}×{side[0]}").Image
    bands = (image.fromarray(np.ascontiguousarray(pixels[:, :, band])) for band in range(pixels.shape[2]))
    return np.stack([np.asarray(band.resize(side, image.Resampling.BICUBIC, box=box)) for band in bands], axis=2)


def _read_ppm(content: bytes) -> Pixels:
    """Return the pixels of a binary PPM: ``P6``, width, height, 255, one white space, then the bytes."""
    header = re.match(rb"P6\s+(\d{1,6})\s+(\d{1,6})\s+255\s", content)
    if header is None:
        raise DeployError("it is no binary PPM (P6) of 8 bits without comments; pip install pillow to read others")
    width, height = map(int, header.groups())
    return np.frombuffer(content, np.uint8, width * height * 3, header.end()).reshape(height, width, 3)


def _has_pillow() -> bool:
    try:
        import PIL.Image  # noqa: F401, PLC0415 - not needed for everything
    except ImportError:
        return False
    return True


def _pillow(purpose: str) -> Any:
    """Return Pillow, which is needed for ``purpose``."""
    if not _has_pillow():
        raise DeployError(f"Pillow is needed to {purpose}: pip install pillow")
    import PIL.Image  # noqa: PLC0415
    import PIL.ImageOps  # noqa: PLC0415

    return PIL


def _print(text: str) -> None:
    """Print a text; a reader that has left is no error, a full disk is."""
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would try to write it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise DeployError(f"cannot print: {_line(error)}") from None


def _line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind."""
    text = getattr(error, "strerror", None) or str(error)
    return next(iter(text.splitlines()), "") or type(error).__name__


def _printable(text: str) -> str:
    """Return a text without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
