"""Where images come from: scikit-learn's digits, CIFAR through torchvision, image folders."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from supernet.console import end_progress, progress_bar
from supernet.errors import unknown_name
from training.config import DEFAULT_BATCH
from training.data.augment import Augmentation
from training.data.images import DataError, ImageSet

#: Files that take long enough to read for a progress bar.
_MANY_FILES = 5000

#: Every fifth digit of each class is test data.
_DIGITS_TEST_EVERY = 5


@dataclasses.dataclass(frozen=True)
class Source:
    """One kind of data: how a split is loaded, and the augmentation and batch size that suit it.

    ``load(root, split, side, download)`` returns the ``train`` or ``test`` images as squares of ``side``.
    """

    load: Callable[[Path, str, int, bool], ImageSet]
    augmentation: Callable[[int], Augmentation]
    batch_size: int = DEFAULT_BATCH


def load_images(name: str, root: str, split: str, side: int, *, download: bool = False) -> ImageSet:
    """Return the ``train`` or ``test`` images of a data set, resized to squares of ``side`` pixels.

    Raises:
        DataError: the data set is unknown, missing or unreadable; the message names the file or option.
    """
    return source(name).load(Path(root), split, side, download)


def source(name: str) -> Source:
    """Return the source called ``name``.

    Raises:
        DataError: there is none; the message lists the valid names.
    """
    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    return SOURCES[name]


def _load_digits(root: Path, split: str, side: int, download: bool) -> ImageSet:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import, needed for digits only

    del root, download
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    # Position of each image among those of its class, so that the split keeps the classes' shares.
    rank = torch.stack([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    chosen = (rank % _DIGITS_TEST_EVERY == 0) == (split == "test")
    grey = torch.from_numpy(digits.images)[chosen, None].float() * (255 / 16)
    return ImageSet(_to_uint8(_resize(grey.expand(-1, 3, -1, -1), side)), labels[chosen], tuple("0123456789"))


def _load_cifar(dataset: str, root: Path, split: str, side: int, download: bool) -> ImageSet:
    from torchvision import datasets  # noqa: PLC0415 - slow to import

    try:
        data: Any = getattr(datasets, dataset)(str(root), train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise DataError(f"cannot download {dataset} to {root}: {error}") from error
        raise DataError(
            f"{dataset} is not in {root}, or its files are damaged; set --data.root, or pass --data.download"
        ) from error
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    images = pixels if pixels.shape[-1] == side else _to_uint8(_resize(pixels.float(), side))
    return ImageSet(images.contiguous(), torch.tensor(data.targets), tuple(data.classes))


def _load_folder(root: Path, split: str, side: int, download: bool) -> ImageSet:
    if download:
        raise DataError("an image folder cannot be downloaded; drop --data.download and set --data.root")
    classes = _classes(root / "train")
    missing = sorted(set(classes) - set(_classes(root / "test")))
    if missing:
        raise DataError(f"{root / 'test'} lacks the class {missing[0]!r}, which {root / 'train'} has")
    unknown = sorted(set(_classes(root / "test")) - set(classes))
    if unknown:
        raise DataError(f"{root / 'train'} lacks the class {unknown[0]!r}, which {root / 'test'} has")
    return _load_classes(root / split, classes, side)


def load_class_folders(folder: Path, side: int) -> ImageSet:
    """Return all images of ``folder/CLASS/``, resized to squares of ``side`` pixels.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    return _load_classes(folder, _classes(folder), side)


def _load_classes(folder: Path, classes: tuple[str, ...], side: int) -> ImageSet:
    files = _image_files(folder, classes)
    _check_memory(len(files), side)
    images = torch.from_numpy(np.stack(_decode_all([path for path, _ in files], side)))
    return ImageSet(images.permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in files]), classes)


def _decode_all(paths: list[Path], side: int) -> list[NDArray[np.uint8]]:
    progress = progress_bar()
    task = progress.add_task("reading images", total=len(paths))
    if len(paths) >= _MANY_FILES:
        progress.start()
    pixels = []
    try:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for decoded in pool.map(lambda path: _decode(path, side), paths):
                pixels.append(decoded)
                progress.advance(task)
    finally:
        end_progress(progress)
    return pixels


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; images belong in ROOT/train/CLASS and ROOT/test/CLASS")
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if not names:
        raise DataError(f"{folder} is empty: it holds no CLASS folders")
    return names


def _image_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # noqa: PLC0415 - slow to import

    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
        if not found:
            raise DataError(f"{folder / name} holds no images (looked for {', '.join(IMG_EXTENSIONS)})")
        files += [(path, label) for path in found]
    return files


def _check_memory(count: int, side: int) -> None:
    needed = count * 3 * side * side
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Decoding holds the single images and the stacked tensor at once.
    if 2 * needed > available:
        raise DataError(
            f"{count:,} images of {side}×{side} need {2 * needed / 1e9:.1f} GB to decode and this machine has "
            f"{available / 1e9:.1f} GB; use fewer images, or a space of a lower resolution"
        )


def _decode(path: Path, side: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - comes with torchvision

    try:
        with Image.open(path) as image:
            rgb = _to_8_bits(image).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {path}: {error}; repair or remove it") from error
    if rgb.size != (side, side):
        short = min(rgb.size)
        left, top = (rgb.width - short) // 2, (rgb.height - short) // 2
        rgb = rgb.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    return np.asarray(rgb)


def _to_8_bits(image: Any) -> Any:
    """Return a 16-bit grey image with 8 bits; Pillow's own conversion would clip it to white."""
    from PIL import Image  # noqa: PLC0415

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _to_uint8(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def _natural(side: int) -> Augmentation:
    return Augmentation(crop=side // 8, flip=True)


def _cifar(name: str) -> Source:
    return Source(lambda *args: _load_cifar(name, *args), _natural)


#: Every data set by name. Mirrored digits are other digits, so they are moved by a pixel in eight only; there are
#: 1,433 of them to train with, too few for large batches on many clients.
SOURCES: Mapping[str, Source] = {
    "digits": Source(_load_digits, lambda side: Augmentation(crop=side // 8), batch_size=16),
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "imagefolder": Source(_load_folder, _natural),
}
