"""Images as arrays in memory: what ``train`` takes in place of a data set's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fedpareto.supernet.common.arguments import plain
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.preparation import PictureError, Pixels, to_8_bits, white_of
from fedpareto.training.data.images import DataError

#: Images and their labels.
Labelled = tuple[ArrayLike | Tensor, ArrayLike | Tensor]

_DIMENSIONS = (3, 4)

#: Of a class or a client.
_LARGEST_NUMBER = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class LabelledPixels:
    """Images of one split, checked.

    Attributes:
        pixels: (N, height, width, channels) uint8.
        labels: (N,) int64.
    """

    pixels: Pixels
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class ImageData:
    """Images in memory, with their labels and, where it is known, the client that each belongs to.

    Args:
        images: (N, height, width) or (N, height, width, channels), whole numbers or floats; a torch tensor is (N,
            channels, height, width). White is one value for all splits: 255, 4095 or 65535 for whole numbers and large
            floats, 1 for floats up to 1, and for floats up to 16 their largest value.
        labels: (N,), whole numbers from 0.
        clients: (N,), whole numbers from 0: the client of each image. Left out, a partition spreads the images.
        classes: names of the classes in the order of the labels; the numbers when left out.
        validation: images and labels for validation; a share of the training images when left out.
        test: images and labels that ``Subnet.accuracy("test")`` measures on.

    Raises:
        DataError: arrays have other shapes or lengths, or values that mean nothing; the message names the argument.

    >>> import numpy as np
    >>> import fedpareto as fp
    >>> images = np.zeros((40, 8, 8), dtype=np.uint8)
    >>> fp.ImageData(images, np.arange(40) % 4, clients=np.arange(40) // 10)
    ImageData(40 images of 8 × 8, 4 classes, 4 clients)
    """

    def __init__(
        self,
        images: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        clients: ArrayLike | Tensor | None = None,
        classes: Sequence[str] | None = None,
        validation: Labelled | None = None,
        test: Labelled | None = None,
    ) -> None:
        named: dict[str, Labelled] = {"": (images, labels)}
        for name, pair in (("validation ", validation), ("test ", test)):
            if pair is not None:
                named[name] = _pair(name.strip(), pair)
        arrays = {name: _pictures(name, pair[0]) for name, pair in named.items()}
        white = _common_white(arrays)
        found = {name: _labelled(name, arrays[name], white, pair[1]) for name, pair in named.items()}
        self.train, self.validation, self.test = found[""], found.get("validation "), found.get("test ")
        self.clients = None if clients is None else _numbers("clients", clients, len(self.train))
        splits = [split for split in (self.train, self.validation, self.test) if split is not None]
        largest = max(int(split.labels.max()) for split in splits)
        images_in_all = sum(map(len, splits))
        if self.client_count > len(self.train):
            raise DataError(
                f"clients go up to {self.client_count - 1}, and there are {counted(len(self.train), 'image')}; number "
                "the clients from 0"
            )
        if classes is None and largest >= images_in_all:
            raise DataError(
                f"labels go up to {largest}, and there are {counted(images_in_all, 'image')}; number the classes from 0"
            )
        self.classes = tuple(map(str, range(largest + 1))) if classes is None else _names(classes)
        if largest >= len(self.classes):
            raise DataError(
                f"labels go up to {largest}, and classes names {len(self.classes)}; name one for each label"
            )
        shapes = {split.pixels.shape[3] for split in splits}
        if len(shapes) > 1:
            raise DataError(f"channels of the splits are {sorted(shapes)}; their images must have equally many")

    def __repr__(self) -> str:
        height, width = self.train.pixels.shape[1:3]
        parts = [f"{counted(len(self.train), 'image')} of {height} × {width}", counted(len(self.classes), "class")]
        if self.clients is not None:
            parts.append(counted(self.client_count, "client"))
        return f"ImageData({', '.join(parts)})"

    @property
    def client_count(self) -> int:
        """Clients that the images belong to; 0 where that is not known."""
        return 0 if self.clients is None else int(self.clients.max()) + 1


def image_data_of(given: object) -> ImageData:
    """Image data that were given as such, as a pair of images and labels, or as a torch ``Dataset``.

    Raises:
        DataError: it is none of these, or what it holds cannot be read.
    """
    if isinstance(given, ImageData):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return ImageData(*given)
    if isinstance(given, Dataset) or (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        return _of_dataset(cast("Dataset[Any]", given))
    raise DataError(
        f"data is of type {type(given).__name__}; give a data set's name, 'module:function', ImageData, "
        "(images, labels) or a torch Dataset"
    )


def _of_dataset(dataset: Any) -> ImageData:
    """Image data of a torch ``Dataset`` whose items are (image, label) pairs of one size."""
    images: list[NDArray[Any]] = []
    labels: list[int] = []
    for index in range(_length(dataset)):
        image, label = _item(dataset, index)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"item {index} of the data set has shape {image.shape} and the first {images[0].shape}; they must be "
                "alike: resize them, or train on an image folder"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise DataError("the data set is empty")
    return ImageData(np.stack(images), labels, classes=getattr(dataset, "classes", None))


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError as error:
        raise DataError(
            f"the data set of type {type(dataset).__name__} has no length; give one whose items are numbered, or "
            "ImageData"
        ) from error


def _item(dataset: Any, index: int) -> tuple[NDArray[Any], int]:
    """Image, channels last, and label of one item of a data set."""
    try:
        image, label = dataset[index]
    except Exception as error:
        # Whatever a user's data set raises is for the user to mend.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(f"item {index} of the data set is no (image, label) pair ({reason:.160})") from error
    number = plain(label.item() if isinstance(label, Tensor) and label.ndim == 0 else label)
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"item {index} of the data set has the label {label!r:.60}; it must be a whole number from 0")
    if isinstance(image, Tensor) and image.ndim == min(_DIMENSIONS):
        image = image.movedim(0, -1)
    return _array(f"the image of item {index}", image), number


def _pair(name: str, given: object) -> Labelled:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{name} must be a pair of images and labels")
    images, labels = given
    return images, labels


def _pictures(which: str, images: ArrayLike | Tensor) -> NDArray[Any]:
    """Images of a split as (N, height, width, channels), whatever their values."""
    array = _array(f"{which}images", images)
    if array.ndim not in _DIMENSIONS or 0 in array.shape:
        raise DataError(
            f"{which}images have shape {array.shape}; they must be (N, height, width) or (N, height, width, channels), "
            "a torch tensor (N, channels, height, width)"
        )
    return array[..., None] if array.ndim == min(_DIMENSIONS) else array


def _common_white(arrays: Mapping[str, NDArray[Any]]) -> float:
    """The value that is white in all splits: they are scaled alike, though one may lack the brightest pixel."""
    whites = {}
    for which, array in arrays.items():
        try:
            whites[which] = white_of(array)
        except PictureError as error:
            raise DataError(f"{which}images: {error}") from error
    types = sorted({str(array.dtype) for array in arrays.values()})
    if len(types) > 1 and len(set(whites.values())) > 1:
        raise DataError(f"images of the splits are {' and '.join(types)}, with different whites; give them as one type")
    return max(whites.values())


def _labelled(which: str, array: NDArray[Any], white: float, labels: ArrayLike | Tensor) -> LabelledPixels:
    pixels = np.ascontiguousarray(to_8_bits(array, white))
    return LabelledPixels(pixels, _numbers(f"{which}labels", labels, len(array)))


def _names(classes: object) -> tuple[str, ...]:
    if not isinstance(classes, list | tuple) and not (isinstance(classes, np.ndarray) and classes.ndim == 1):
        raise DataError(
            f"classes are of type {type(classes).__name__}; give a list of names in the order of the labels"
        )
    names = tuple(map(str, classes))
    if len(set(names)) < len(names):
        raise DataError(f"classes are {list(names)}; every name may stand there once")
    return names


def _array(name: str, given: object) -> NDArray[Any]:
    """An array of whatever numpy, or torch, makes one of.

    Raises:
        DataError: nothing does.
    """
    try:
        if isinstance(given, list | tuple) and given and all(isinstance(each, Tensor) for each in given):
            given = torch.stack([each for each in given if isinstance(each, Tensor)])
        if isinstance(given, Tensor):
            tensor = given.detach().cpu()
            if tensor.ndim == max(_DIMENSIONS):
                tensor = tensor.movedim(1, -1)
            given = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} cannot be read as one array ({reason:.120})") from error


def _numbers(name: str, given: ArrayLike | Tensor, count: int) -> NDArray[np.int64]:
    array = _array(name, given)
    if array.shape != (count,):
        raise DataError(f"{name} have shape {array.shape}; there are {counted(count, 'image')}: give ({count},)")
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} are {array.dtype}; they must be whole numbers from 0")
    for extreme in (int(array.min()), int(array.max())):
        if not 0 <= extreme <= _LARGEST_NUMBER:
            raise DataError(f"{name} hold {extreme}; they must be whole numbers from 0 to {_LARGEST_NUMBER:,}")
    return array.astype(np.int64)


def check_image_data(given: object, source: str) -> ImageData:
    """Image data that a function of the user returned.

    Raises:
        UserError: it returned something else; ``source`` names it.
    """
    try:
        return image_data_of(given)
    except DataError as error:
        raise UserError(f"{source}: {error}") from error
