"""Files of image arrays: images that were given in memory, kept so that a run can be resumed and searched.

A folder holds ``train.safetensors`` and perhaps ``validation.safetensors`` and ``test.safetensors``, each with
``images`` (N, height, width, channels) uint8 and ``labels`` (N,) int64, the first also with ``clients`` (N,) int64
where images belong to clients. Class names are metadata.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import replacing_folder
from fedpareto.supernet.common.storage.path_checks import reaching
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.image_data import ImageData, LabelledPixels
from fedpareto.training.data.images import DataError

_FORMAT = "fedpareto-images"

#: What images of no client are said to belong to: those that are held out.
NOBODY = -1


def write_arrays(folder: Path, data: ImageData) -> None:
    """Write image data into a new folder, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    metadata = {"format": _FORMAT, "classes": json.dumps(data.classes)}
    with reaching(folder, "write"), replacing_folder(folder) as temporary:
        for name in ("train", "validation", "test"):
            split: LabelledPixels | None = getattr(data, name)
            if split is None:
                continue
            tensors = {"images": split.pixels, "labels": split.labels}
            if name == "train" and data.clients is not None:
                tensors["clients"] = data.clients
            save_file(tensors, temporary / f"{name}.safetensors", metadata)


def own_validation(folder: Path) -> Path | None:
    """File of the images that are for validation only, None if there is none."""
    path = folder / "validation.safetensors"
    return path if path.is_file() else None


def list_arrays(folder: Path, split: str) -> Listing:
    """List the images of a split of a folder; with ``train+validation`` those for validation come last.

    Raises:
        DataError: a file is missing, damaged or of another format.
    """
    own = own_validation(folder)
    if split != "train+validation" or own is None:
        return _read(folder / f"{'test' if split == 'test' else 'train'}.safetensors")
    return joined(_read(folder / "train.safetensors"), _read(own))


def joined(training: Listing, held_out: Listing) -> Listing:
    """One listing of training images, and of images for validation at its end."""
    pixels = np.concatenate([_pixels(training), _pixels(held_out)])
    nobody = torch.full((len(held_out),), NOBODY)
    clients = None if training.clients is None else torch.cat([training.clients, nobody])
    labels = torch.cat([training.labels, held_out.labels])
    return Listing(labels, training.classes, Arrays("arrays", pixels), len(held_out), clients)


def listing_of(split: LabelledPixels, classes: tuple[str, ...], clients: Tensor | None = None) -> Listing:
    """Listing of images in memory."""
    return Listing(torch.from_numpy(split.labels), classes, Arrays("arrays", split.pixels), clients=clients)


def _pixels(listing: Listing) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    if not isinstance(listing.pictures, Arrays):
        raise TypeError("images in arrays were expected")
    return listing.pictures.pixels


def _read(path: Path) -> Listing:
    if path.name == "test.safetensors" and not path.exists() and path.with_name("train.safetensors").is_file():
        raise DataError(
            f"{path.parent} holds no test images, and test images were asked for; train on ImageData(…, test=…)"
        )
    if not path.is_file():
        raise DataError(
            f"there is no {path}, which held the images; restore it, or add {option('data.root', 'FOLDER')}"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        classes = parse_json(metadata.get("classes", ""), str(path), DataError)
        split = LabelledPixels(tensors["images"], tensors["labels"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({str(error) or type(error).__name__}); restore it") from error
    _check(path, metadata, split, classes)
    clients = tensors.get("clients")
    return listing_of(split, tuple(classes), None if clients is None else torch.from_numpy(clients))


def _check(path: Path, metadata: dict[str, str], split: LabelledPixels, classes: object) -> None:
    """Refuse what this program did not write."""
    fits = (
        metadata.get("format") == _FORMAT
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and split.pixels.dtype == np.uint8
        and split.pixels.ndim == 4
        and split.labels.dtype == np.int64
        and split.labels.shape == split.pixels.shape[:1]
        and (len(split) == 0 or 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes))
    )
    if not fits:
        raise DataError(f"{path} is damaged, or holds no images that train() kept; restore it")
