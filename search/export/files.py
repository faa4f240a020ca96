"""Check of pictures in files: read as a device reads them, they must give the pixels that training saw."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fedpareto.search.export.deploy import Description, network_input, read_pixels
from fedpareto.search.export.formats import refused_by_deploy
from fedpareto.search.export.onnx_file import Images
from fedpareto.search.export.settings import ExportError
from fedpareto.training.data.files.preparation import ARRAY_SUFFIX, Pixels
from fedpareto.training.data.images import ImageSet


def spread(images: ImageSet, most: int) -> ImageSet:
    """Choose at most ``most`` of the images, as evenly over the classes as they allow."""
    labels = images.labels.numpy()
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return images.subset(torch.from_numpy(np.lexsort((labels, rank))[:most]))


def deployed_inputs(images: ImageSet, description: Description) -> Iterator[Images]:
    """Yield the network input that a device makes from every image's file, normalised, (1, channels, side, side).

    Raises:
        ExportError: a device refuses a file, or gets other pixels from it than training has.
    """
    with _files(images) as paths:
        for path, image in zip(paths, images.images, strict=True):
            with refused_by_deploy():
                pixels = read_pixels(path, description)
                _check_same(path, pixels, _last(image))
                yield network_input(pixels, description)


def _check_same(path: Path, pixels: Pixels, expected: Pixels) -> None:
    if pixels.shape != expected.shape:
        raise ExportError(f"deploy.py makes {pixels.shape} of {path}, training {expected.shape}; nothing is written")
    differ = pixels != expected
    if differ.any():
        raise ExportError(
            f"deploy.py and training make different pixels of {path}: {differ.mean():.1%} of the values differ; "
            "nothing is written"
        )


@contextlib.contextmanager
def _files(images: ImageSet) -> Iterator[list[Path]]:
    """Yield a file of every image: its own, or one that is written for the time of the block."""
    if images.paths is not None:
        yield list(images.paths)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield [_written(Path(folder) / str(number), _last(image)) for number, image in enumerate(images.images)]


def _written(path: Path, pixels: Pixels) -> Path:
    """Write pixels losslessly, as a picture if they are grey or RGB; return the file."""
    channels = pixels.shape[2]
    if channels not in (1, 3):
        file = path.with_suffix(ARRAY_SUFFIX)
        np.save(file, pixels)
        return file
    file = path.with_suffix(".png")
    Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(file)
    return file


def _last(image: torch.Tensor) -> Pixels:
    """Return pixels (channels, side, side) as (side, side, channels)."""
    pixels: Pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return pixels
