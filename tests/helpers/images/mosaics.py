"""Small mosaics of images, as benchmarks read them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_mosaic(folder: Path, split: str, rows: int, columns: int, side: int = 32) -> np.ndarray[Any, Any]:
    """Write tiles of one colour each, and their labels in turn; return the tiles, (N, side, side, 3) uint8."""
    count = rows * columns
    # JPEG leaves tiles of one colour as they are, to a few values, where they are whole blocks of it.
    colours = np.random.default_rng(count).integers(0, 256, (count, 1, 1, 3))
    tiles = np.broadcast_to(colours, (count, side, side, 3)).astype(np.uint8)
    picture = tiles.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    picture = picture.reshape(rows * side, columns * side, 3)
    Image.fromarray(picture).save(folder / f"{split}.jpg", quality=98, subsampling=0)
    np.save(folder / f"{split}-labels.npy", (np.arange(count) % 10).astype(np.uint8))
    return tiles
