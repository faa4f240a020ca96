"""Data sources by name: the digits, CIFAR, folders, tables and other formats, a user's function, registered ones."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extensions import short
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.config.data import DEFAULT_BATCH, Reading
from fedpareto.training.config.registries import DATA_SETS
from fedpareto.training.data.array_files import list_arrays, own_validation
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.checked_source import checked_source
from fedpareto.training.data.digits import read_digits
from fedpareto.training.data.files.folders import ClassFiles, check_same_classes, class_files, holds_classes, is_there
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Arrays, Files
from fedpareto.training.data.files.stamps import Stamp, stamps
from fedpareto.training.data.formats.client_folders import read_client_folders
from fedpareto.training.data.formats.damage import undamaged
from fedpareto.training.data.formats.examples import Examples
from fedpareto.training.data.formats.huggingface import read_huggingface
from fedpareto.training.data.formats.leaf import read_leaf
from fedpareto.training.data.formats.npz import read_npz
from fedpareto.training.data.formats.table import read_table
from fedpareto.training.data.formats.webdataset import read_webdataset
from fedpareto.training.data.functions import COLON, has_validation, list_function
from fedpareto.training.data.images import DataError, ImageSet, NoTestImagesError
from fedpareto.training.data.stores.choice import Storage

#: Which images; with ``train+validation`` those of the data's own validation split come last.
SplitName = Literal["train", "train+validation", "test"]

#: What the folder of validation images may be called.
_VALIDATION = ("val", "valid", "validation")

#: Photographs of fewer pixels a side are flipped only: at 16, crops cost small networks three to five points
#: (``docs/recipe.md``).
_LEAST_CROPPED = 32

#: Data without a choice are read so, and those of whose choice nothing is said.
_PLAIN = Reading()

#: Every fifth digit of each class is test data.
_DIGITS_TEST_EVERY = 5


def _none(root: Path) -> None:
    del root


@dataclasses.dataclass(frozen=True)
class Source:
    """Data source: lists the images of a split, and has the augmentation and batch size that suit them.

    ``listing(root, split, download, listener)`` returns a split's images, none of them decoded, and tells the listener
    of files that it skips. ``validation(root)`` returns the folder of the data's own validation split, None if there is
    none. ``configured(reading)``, where there is a choice, returns the source that reads so. ``in_files`` is True of a
    user's own files, in which splits may share images.
    """

    listing: Callable[[Path, SplitName, bool, ProgressListener], Listing]
    augmentation: Callable[[int], Augmentation]
    batch_size: int = DEFAULT_BATCH
    validation: Callable[[Path], Path | None] = _none
    configured: "Callable[[Reading], Source] | None" = None
    in_files: bool = False


def load_images(
    name: str,
    root: str,
    split: SplitName,
    preparation: Preparation,
    *,
    download: bool = False,
    reading: Reading = _PLAIN,
    listener: ProgressListener = SILENT,
    storage: Storage | None = None,
) -> ImageSet:
    """Return all images of a split of a data set, decoded; with ``storage`` perhaps elsewhere than in memory.

    Raises:
        DataError: the data set is unknown, missing or unreadable; the message names the file or option.
    """
    listing = list_images(name, root, split, download=download, reading=reading, listener=listener)
    return listing.read(preparation, listener, storage=storage)


def list_images(
    name: str,
    root: str,
    split: SplitName,
    *,
    download: bool = False,
    reading: Reading = _PLAIN,
    listener: ProgressListener = SILENT,
) -> Listing:
    """Return the images of a split of a data set, none of them decoded.

    Raises:
        DataError: the data set is unknown or missing; the message names the file or option.
    """
    listing = source(name, reading).listing(Path(root), split, download, listener)
    return undamaged(listing, listener) if reading.skip_damaged else listing


def source(name: str, reading: Reading = _PLAIN) -> Source:
    """Return the source called ``name``, which reads as ``reading`` says where it has a choice.

    Raises:
        DataError: there is no such source; the message lists the valid names.
    """
    if COLON in name:
        return _of_function(name)
    try:
        found: Source = DATA_SETS.get(name)
    except UserError as error:
        raise DataError(str(error)) from error
    if DATA_SETS.brought(name):
        return checked_source(name, found)
    return found if found.configured is None else found.configured(reading)


def register_data_source(name: str, data: Source) -> Source:
    """Register a data set: ``data.name`` may name it for as long as this process runs. Returns it.

    Raises:
        UserError: another one has the name, it is no name, or ``data`` is no ``Source``.

    >>> import fedpareto as fp
    >>> from fedpareto.training.data.sources import DIGITS, Source
    >>> _ = fp.register_data_source("small-batches", Source(DIGITS.listing, DIGITS.augmentation, batch_size=4))
    """
    if not isinstance(data, Source):
        raise UserError(f"{short(name)} is no data set: it is {short(data)}; it must be a Source")
    DATA_SETS.register(name, data)
    return data


def _list_digits(root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
    del root, download, listener
    pictures, digits = read_digits()
    labels = torch.from_numpy(digits)
    # Position of each image among those of its class, so that the split keeps the classes' shares.
    rank = torch.stack([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    chosen = (rank % _DIGITS_TEST_EVERY == 0) == (split == "test")
    # Their white is 16, which no file format's is.
    grey = np.rint(pictures[chosen.numpy()] * (255 / 16)).astype(np.uint8)
    return Listing(labels[chosen], tuple("0123456789"), Arrays("digits", grey[..., None]))


def _list_cifar(dataset: str, root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
    from torchvision import datasets  # noqa: PLC0415 - slow to import, needed for CIFAR only

    del listener
    try:
        data: Any = getattr(datasets, dataset)(str(root), train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise DataError(f"cannot download {dataset} to {root}: {error}") from error
        raise DataError(
            f"{dataset} is not in {root}, or its files are damaged; set {option('data.root')}, or "
            f"pass {option('data.download')}"
        ) from error
    return Listing(torch.tensor(data.targets), tuple(data.classes), Arrays(dataset, data.data))


def _list_folder(root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
    if download:
        raise DataError(
            f"an image folder cannot be downloaded; drop {option('data.download')} and set {option('data.root')}"
        )
    train, test, own = root / "train", root / "test", _own_validation(root)
    if split == "test" and is_there(train) and not is_there(test):
        raise NoTestImagesError(
            f"there is no folder {test}, and test images were asked for; name the right folder, or do without them"
        )
    # A difference between training and test images is told before anything is trained.
    others = [own] if own is not None else []
    # An empty folder of test images is none, until they are asked for.
    if split == "test" or holds_classes(test):
        others.append(test)
    for other in others:
        if is_there(train) and is_there(other):
            check_same_classes(train, other)
    if own is None or split != "train+validation":
        return list_class_folders(test if split == "test" else train, listener)
    found, held_out = _class_files(train, listener), _class_files(own, listener)
    labels = torch.tensor([*found.labels, *held_out.labels])
    return Listing(labels, found.classes, Files((*found.paths, *held_out.paths)), len(held_out.paths))


def list_class_folders(folder: Path, listener: ProgressListener = SILENT) -> Listing:
    """Return all images of ``folder/CLASS/``, none of them decoded; ``listener`` is told of files that are skipped.

    Raises:
        DataError: there are none, or something cannot be read.
    """
    found = _class_files(folder, listener)
    return Listing(torch.tensor(found.labels), found.classes, Files(found.paths))


def _class_files(folder: Path, listener: ProgressListener) -> ClassFiles:
    found = class_files(folder)
    remark = found.skipped.words(folder)
    if remark is not None:
        listener.remark(remark)
    return found


def _own_validation(root: Path) -> Path | None:
    found = [root / name for name in _VALIDATION if is_there(root / name)]
    if len(found) > 1:
        raise DataError(f"{root} holds {found[0].name}/ and {found[1].name}/; keep one of them for validation")
    return found[0] if found else None


def _natural(side: int) -> Augmentation:
    return Augmentation(crop=side // 8 if side >= _LEAST_CROPPED else 0, flip=True)


def _cifar(name: str) -> Source:
    return Source(lambda *args: _list_cifar(name, *args), _natural)


def _list_arrays(root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
    del download, listener
    return list_arrays(root, split)


def _of_examples(read: Callable[[Path, Reading], Examples], *, kept: bool = True) -> Source:
    """Data source of a format; what was read is ``kept`` until other data, or others' columns, are read."""

    def configured(reading: Reading) -> Source:
        def examples(root: Path) -> Examples:
            return _read_once(read, root, reading, _stamped(root)) if kept else read(root, reading)

        def listing(root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
            if download and not reading.download:
                return configured(dataclasses.replace(reading, download=True)).listing(root, split, download, listener)
            found = examples(root)
            if split != "test":
                for words in found.remarks:
                    listener.remark(words)
            return found.listing(split)

        def validation(root: Path) -> Path | None:
            return root if examples(root).has_validation else None

        return Source(listing, _natural, validation=validation, configured=configured, in_files=True)

    return configured(_PLAIN)


def _stamped(root: Path) -> tuple[Stamp | None, ...]:
    """Stamps of a file, or of all files in a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return tuple(stamps(files))


@functools.lru_cache(maxsize=1)
def _read_once(
    read: Callable[[Path, Reading], Examples], root: Path, reading: Reading, stamped: tuple[Stamp | None, ...]
) -> Examples:
    del stamped
    return read(root, reading)


def _of_function(name: str) -> Source:
    """Data source of a user's own function."""

    def listing(root: Path, split: SplitName, download: bool, listener: ProgressListener) -> Listing:
        del download, listener
        return list_function(name, root, split)

    def validation(root: Path) -> Path | None:
        return Path(name) if has_validation(name, root) else None

    return Source(listing, _natural, validation=validation)


#: Mirrored digits are other digits, so they are moved by a pixel in eight only; there are 1,433 of them to train with,
#: too few for large batches on many clients.
DIGITS = Source(_list_digits, lambda side: Augmentation(crop=side // 8), batch_size=16)

CIFAR10, CIFAR100 = _cifar("CIFAR10"), _cifar("CIFAR100")

IMAGEFOLDER = Source(_list_folder, _natural, validation=_own_validation, in_files=True)

ARRAYS = Source(_list_arrays, _natural, validation=own_validation)

# Its folders are walked anew whenever they are listed, as those of an imagefolder are.
CLIENTFOLDERS = _of_examples(read_client_folders, kept=False)

TABLE, LEAF, HUGGINGFACE = _of_examples(read_table), _of_examples(read_leaf), _of_examples(read_huggingface)

WEBDATASET, NPZ = _of_examples(read_webdataset), _of_examples(read_npz)
