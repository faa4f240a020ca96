"""Worker process that decodes images: lists of files come in, their pixels go out, until the input ends.

Each line of the input is JSON with ``paths`` and the ``preparation`` (side, channels, fit). The answer is a line of
JSON with ``failed``, null or the position of a file and why it cannot be decoded; unless one failed, the pixels
follow as they are in memory, (n, channels, side, side) bytes.
"""

import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedpareto.training.data.files.preparation import (
    COLOURS,
    PictureError,
    Pixels,
    Preparation,
    prepare_picture,
    read_picture,
)

#: What every JPEG file begins with.
_JPEG = b"\xff\xd8\xff"

Decode = Callable[[Path, Preparation], Pixels]


def decoded(path: Path, preparation: Preparation) -> Pixels:
    """Pixels of a file, (side, side, channels): of a JPEG by torchvision's decoder, of any other file by Pillow's.

    Both decoders give the same pixels of a JPEG, because both are libjpeg-turbo; the steps after it are the same.

    Raises:
        PictureError: it cannot be decoded.
    """
    content = _jpeg(path)
    if content is None:
        return read_picture(path, preparation)
    import torch  # noqa: PLC0415 - heavy, and needed for JPEG files alone
    from PIL import Image  # noqa: PLC0415
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415

    encoded = torch.frombuffer(content, dtype=torch.uint8)
    try:
        pixels = decode_jpeg(encoded, mode=ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    except RuntimeError as error:
        raise PictureError(str(error).strip().splitlines()[0]) from error
    if len(pixels) not in COLOURS:
        return read_picture(path, preparation)
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return prepare_picture(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array), preparation)


def answer(request: dict[str, Any], decode: Decode = decoded) -> tuple[list[Any] | None, Pixels]:
    """Pixels of a request, (n, channels, side, side), after its first failure as (position, reason), or None."""
    preparation, paths = Preparation(**request["preparation"]), request["paths"]
    side, channels = preparation.side, preparation.channels
    pixels = np.empty((len(paths), channels, side, side), dtype=np.uint8)
    for position, path in enumerate(paths):
        try:
            pixels[position] = decode(Path(path), preparation).transpose(2, 0, 1)
        except PictureError as error:
            return [position, " ".join(str(error).split())], pixels[:0]
    return None, pixels


def main() -> None:
    """Answer requests until the input ends."""
    # Whoever interrupts the run ends its workers by closing their input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    sink = sys.stdout.buffer
    for line in sys.stdin.buffer:
        failed, pixels = answer(json.loads(line))
        sink.write(json.dumps({"failed": failed}).encode() + b"\n")
        sink.write(pixels.data)
        sink.flush()


def _jpeg(path: Path) -> bytearray | None:
    """Content of a JPEG file; None of any other.

    Raises:
        PictureError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(len(_JPEG))
            return bytearray(begin + file.read()) if begin == _JPEG else None
    except OSError as error:
        raise PictureError(error.strerror or str(error)) from error


if __name__ == "__main__":
    main()
