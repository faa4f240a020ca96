"""Small image folders, written for tests."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    """Return noise of shape (height, width, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def write_pictures(
    root: Path, parts: Mapping[str, Mapping[str, int]], channels: int = 3, size: tuple[int, int] = (8, 8)
) -> Path:
    """Write PART/CLASS/NUMBER.png, so many of each class, or .npy where a picture has no such channels."""
    seed = 0
    for part, classes in parts.items():
        for name, count in classes.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                pixels = noise(seed, *size, channels)
                if channels == 3:
                    Image.fromarray(pixels).save(folder / f"{number:03d}.png")
                else:
                    np.save(folder / f"{number:03d}.npy", pixels)
    return root
