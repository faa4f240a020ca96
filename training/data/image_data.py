"""Images as arrays in memory: what ``train`` takes in place of a data set's name."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.preparation import PictureError, Pixels, to_8_bits
from fedpareto.training.data.images import DataError

#: Images and their labels.
Labelled = tuple[ArrayLike | Tensor, ArrayLike | Tensor]

_DIMENSIONS = (3, 4)


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
        images: (N, height, width) or (N, height, width, channels), whole numbers or floats whose white is known (255,
            4095, 65535, or 1 for floats up to 1); a torch tensor is (N, channels, height, width).
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
        self.train = _labelled("", images, labels)
        self.validation = None if validation is None else _labelled("validation ", *_pair("validation", validation))
        self.test = None if test is None else _labelled("test ", *_pair("test", test))
        self.clients = None if clients is None else _numbers("clients", clients, len(self.train))
        splits = [split for split in (self.train, self.validation, self.test) if split is not None]
        largest = max(int(split.labels.max()) for split in splits)
        self.classes = tuple(map(str, range(largest + 1))) if classes is None else tuple(map(str, classes))
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
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"item {index} of the data set is no (image, label) pair")
        image, label = item
        array = image.movedim(0, -1).numpy() if isinstance(image, Tensor) and image.ndim == 3 else np.asarray(image)
        if images and array.shape != images[0].shape:
            raise DataError(
                f"item {index} of the data set has shape {array.shape} and the first {images[0].shape}; they must be "
                "alike: resize them, or train on an image folder"
            )
        images.append(array)
        labels.append(int(label))
    if not images:
        raise DataError("the data set is empty")
    return ImageData(np.stack(images), labels, classes=getattr(dataset, "classes", None))


def _pair(name: str, given: object) -> Labelled:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{name} must be a pair of images and labels")
    images, labels = given
    return images, labels


def _labelled(which: str, images: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> LabelledPixels:
    array = _channels_last(images) if isinstance(images, Tensor) else np.asarray(images)
    if array.ndim not in _DIMENSIONS or 0 in array.shape:
        raise DataError(
            f"{which}images have shape {array.shape}; they must be (N, height, width) or (N, height, width, channels), "
            "a torch tensor (N, channels, height, width)"
        )
    if array.ndim == min(_DIMENSIONS):
        array = array[..., None]
    try:
        pixels = to_8_bits(array)
    except PictureError as error:
        raise DataError(f"{which}images: {error}") from error
    return LabelledPixels(np.ascontiguousarray(pixels), _numbers(f"{which}labels", labels, len(array)))


def _channels_last(images: Tensor) -> NDArray[Any]:
    given = images.detach().cpu()
    array: NDArray[Any] = (given.movedim(1, -1) if given.ndim == max(_DIMENSIONS) else given).numpy()
    return array


def _numbers(name: str, given: ArrayLike | Tensor, count: int) -> NDArray[np.int64]:
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.shape != (count,):
        raise DataError(f"{name} have shape {array.shape}; there are {counted(count, 'image')}: give ({count},)")
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} are {array.dtype}; they must be whole numbers from 0")
    if int(array.min()) < 0:
        raise DataError(f"{name} hold {int(array.min())}; they must be whole numbers from 0")
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
