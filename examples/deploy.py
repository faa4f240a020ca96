"""Classify an image with an exported subnet: onnxruntime and numpy, nothing else.

    python examples/deploy.py subnet/subnet.onnx image.png

Reads .npy (height, width, 3; uint8) and binary .ppm by itself, and other formats with Pillow if it is installed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


def main(model: str, image: str) -> None:
    """Print the three likeliest classes of an image, and how long the network took."""
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SystemExit(fail(f"cannot read {model}: {str(error).splitlines()[0]}")) from None
    texts = session.get_modelmeta().custom_metadata_map
    if "classes" not in texts:
        raise SystemExit(fail(f"{model} has no metadata; write it with search-subnet --export onnx"))
    about = {name: json.loads(text) for name, text in texts.items()}
    pixels = prepare(read_image(Path(image), about["resolution"]), about["normalisation"])

    started = time.perf_counter()
    (logits,) = session.run(None, {"images": pixels})
    milliseconds = (time.perf_counter() - started) * 1000

    shares = np.exp(logits[0] - logits[0].max())
    shares /= shares.sum()
    for number in shares.argsort()[::-1][:3]:
        print(f"{shares[number]:7.2%}  {about['classes'][number]}")
    print(f"{milliseconds:.2f} ms")


def prepare(image: NDArray[np.uint8], normalisation: dict[str, Any]) -> NDArray[np.float32]:
    """Turn (height, width, channels) bytes into the network's normalised (1, channels, height, width)."""
    pixels = (image / 255 - normalisation["mean"]) / normalisation["std"]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def read_image(path: Path, side: int) -> NDArray[np.uint8]:
    """Return an image as (side, side, 3) bytes."""
    try:
        if path.suffix == ".npy":
            image: NDArray[np.uint8] = np.load(path)
        elif path.suffix == ".ppm":
            image = read_ppm(path.read_bytes())
        else:
            image = np.asarray(pillow(f"{path.suffix} images").open(path).convert("RGB"))
    except (OSError, ValueError, IndexError) as error:
        raise SystemExit(fail(f"cannot read {path}: {error}")) from None
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise SystemExit(fail(f"{path} holds {image.dtype} {image.shape}; it must be uint8 (height, width, 3)"))
    if image.shape[:2] != (side, side):
        size = f"{image.shape[1]}×{image.shape[0]} images for a network of {side}×{side}"
        image = np.asarray(pillow(size).fromarray(image).resize((side, side), resample=2))
    return image


def read_ppm(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a binary PPM: ``P6``, width, height, 255, one white space, then the bytes."""
    magic, width, height, largest = content.split(maxsplit=4)[:4]
    if magic != b"P6" or largest != b"255":
        raise ValueError("not a binary PPM (P6) of 8 bits without comments")
    count = int(width) * int(height) * 3
    return np.frombuffer(content[-count:], np.uint8).reshape(int(height), int(width), 3)


def pillow(what: str) -> Any:
    """Return Pillow's image module, which is needed for ``what``."""
    try:
        from PIL import Image  # noqa: PLC0415 - not needed for everything
    except ImportError:
        raise SystemExit(fail(f"Pillow is needed to read or resize {what}: pip install pillow")) from None
    return Image


def fail(message: str) -> int:
    """Print a one-line error; return the exit code."""
    print(f"deploy: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(fail("give two files: deploy.py SUBNET.onnx IMAGE"))
    main(*sys.argv[1:])
