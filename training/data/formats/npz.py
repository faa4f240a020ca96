"""Arrays in one ``.npz`` file: ``x_train``, ``y_train``, ``x_test`` …, or ``images``, ``labels``, ``clients``."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.formats.examples import Examples, examples_of
from fedpareto.training.data.formats.names import Name
from fedpareto.training.data.image_data import ImageData, LabelledPixels
from fedpareto.training.data.images import DataError

#: Names of a split's images and labels.
_PAIRS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels"), ("validation_images", "validation_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}

_CLIENTS, _CLASSES = ("clients", "clients_train", "train_clients"), "classes"


def read_npz(root: Path, reading: Reading) -> Examples:
    """Read the arrays of a file.

    Raises:
        DataError: it is missing or damaged, an array is missing or does not fit the others.
    """
    del reading
    arrays = _arrays(root)
    pairs = {split: pair for split, names in _PAIRS.items() if (pair := _pair(root, arrays, names)) is not None}
    if "train" not in pairs:
        expected = ", ".join(" and ".join(pair) for pair in _PAIRS["train"])
        raise DataError(f"{root} holds {', '.join(arrays)}; it needs {expected}")
    names = [str(name) for name in arrays[_CLASSES]] if _CLASSES in arrays else None
    try:
        data = ImageData(*pairs["train"], classes=names, validation=pairs.get("validation"), test=pairs.get("test"))
    except DataError as error:
        raise DataError(f"{root}: {error}") from error
    return _examples(root, data, next((arrays[name] for name in _CLIENTS if name in arrays), None))


def _examples(root: Path, data: ImageData, clients: NDArray[Any] | None) -> Examples:
    found: dict[str, LabelledPixels] = {"train": data.train}
    found |= {"validation": data.validation} if data.validation is not None else {}
    found |= {"test": data.test} if data.test is not None else {}
    splits = [split for split, part in found.items() for _ in range(len(part))]
    shapes = {part.pixels.shape[1:] for part in found.values()}
    if len(shapes) > 1:
        raise DataError(f"{root}: images of the splits have the shapes {sorted(shapes)}; they must be alike")
    pixels = np.concatenate([part.pixels for part in found.values()])
    labels = np.concatenate([part.labels for part in found.values()]).tolist()
    owners: list[Name | None] | None = None
    if clients is not None:
        if clients.shape != (len(data.train),) or clients.dtype.kind not in "iuU":
            raise DataError(
                f"{root}: clients are {clients.dtype} of shape {clients.shape}; give the number or name of the "
                f"client of each of {counted(len(data.train), 'image')}"
            )
        owners = [*clients.tolist(), *[None] * (len(splits) - len(clients))]
    return examples_of(
        str(root), Arrays("npz", pixels), lambda number: f"{root}, image {number}", labels, splits, owners, data.classes
    )


def _pair(root: Path, arrays: Mapping[str, NDArray[Any]], names: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    for images, labels in names:
        if images in arrays:
            if labels not in arrays:
                raise DataError(f"{root} holds {images} and no {labels}; both are needed")
            flat = arrays[labels]
            # Keras keeps the labels of CIFAR as a column.
            return arrays[images], flat[:, 0] if flat.ndim == 2 and flat.shape[1] == 1 else flat
    return None


def _arrays(root: Path) -> dict[str, NDArray[Any]]:
    found, name = {}, ""
    try:
        with np.load(root, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise DataError(f"{root} holds one array; give a .npz of images and labels")
            for name in file.files:
                found[name] = file[name]
    except FileNotFoundError as error:
        raise DataError(f"there is no file {root}; data.root names a .npz file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        of = f", array {name}" if name else ""
        raise DataError(f"cannot read {root}{of}: {str(error) or type(error).__name__}; restore it") from error
    return found
