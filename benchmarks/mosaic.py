"""A data set as two large JPEG files with labels: little to carry, and decoded in about a second.

A folder holds ``train.jpg`` and ``test.jpg``, square tiles row by row, and ``train-labels.npy`` and
``test-labels.npy``, a uint8 for every tile. The side of a tile follows from the picture and the number of labels.
"""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.images import DataError, ImageSet

#: Classes of CIFAR-10, in the order that its folders have.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: Pixels of a picture at most: a quarter of a gigabyte of memory.
MOST_PIXELS = 80_000_000


def is_mosaic(folder: Path) -> bool:
    """Return whether a folder holds a mosaic of training images."""
    return (folder / "train.jpg").is_file()


def read_mosaic(folder: Path, split: str) -> ImageSet:
    """Return the images of a split, ``train`` or ``test``; (N, 3, side, side) uint8.

    Raises:
        DataError: a file is missing, damaged or too large, or the labels are not those of the picture's tiles.
    """
    labels = _labels(folder / f"{split}-labels.npy")
    pixels = _pixels(folder / f"{split}.jpg")
    height, width, _ = pixels.shape
    side = math.isqrt(height * width // len(labels))
    rows, columns = height // max(1, side), width // max(1, side)
    if rows * columns != len(labels) or (rows * side, columns * side) != (height, width):
        size, tiles = f"{width} x {height} pixels", counted(len(labels), "square tile")
        raise DataError(f"{folder / split}.jpg has {size}, which {tiles} do not fill")
    cut = torch.from_numpy(pixels).view(rows, side, columns, side, 3).permute(0, 2, 4, 1, 3)
    classes = max(len(CIFAR10), int(labels.max()) + 1)
    names = CIFAR10 if classes == len(CIFAR10) else tuple(map(str, range(classes)))
    return ImageSet(cut.reshape(-1, 3, side, side).contiguous(), torch.from_numpy(labels).long(), names)


def _labels(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 1 or not len(labels):
        raise DataError(f"{path} must hold one uint8 for every tile")
    return labels


def _pixels(path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    try:
        with warnings.catch_warnings():
            # A mosaic is what Pillow warns of as a bomb; its size is looked at here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise DataError(f"{path} has {picture.width} x {picture.height} pixels, too many for a mosaic")
                return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
