"""LEAF's JSON: ``{users, num_samples, user_data: {user: {x, y}}}``, in ``train/`` and ``test/``, or in ``all_data/``.

Caldas et al., "LEAF: a benchmark for federated settings" (2018). Pictures are lists of values, as those of FEMNIST:
28×28 floats from 0 to 1.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.preparation import PictureError, to_8_bits, white_of
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.formats.examples import Examples, examples_of
from fedpareto.training.data.images import DataError

_FOLDERS = {"train": "train", "test": "test", "val": "validation"}


def read_leaf(root: Path, reading: Reading) -> Examples:
    """Read all users of a folder in LEAF's layout.

    Raises:
        DataError: a file is missing, damaged or of another format, a user has no images.
    """
    del reading
    values: list[NDArray[np.float32]] = []
    labels: list[str | int] = []
    clients: list[str] = []
    splits: list[str] = []
    places: list[tuple[str, str]] = []
    for path, split in _files(root):
        known: set[str] = {client for client, own in zip(clients, splits, strict=True) if own == split}
        for user, pictures, own in _users(path):
            if user in known:
                raise DataError(f"{path}: the user {user!r} is in two files; a user's images are in one")
            values.append(pictures)
            labels += own
            clients += [user] * len(own)
            splits += [split] * len(own)
            places += [(str(path), user)] * len(own)
    lengths = {each.shape[1]: place for each, place in zip(values, dict.fromkeys(places), strict=True)}
    if len(lengths) > 1:
        (one, first), (other, second), *_ = lengths.items()
        raise DataError(
            f"images of {second[1]!r} in {second[0]} are lists of {other}, those of {first[1]!r} of {one}; all of a "
            "set are as long"
        )
    pixels = _square(np.concatenate(values), str(root))

    def place(position: int) -> str:
        path, user = places[position]
        return f"{path}: an image of {user!r}"

    return examples_of(str(root), Arrays("leaf", pixels), place, labels, splits, clients)


def _files(root: Path) -> list[tuple[Path, str]]:
    """All .json files with their split."""
    if root.is_file():
        return [(root, "train")]
    for base in (root, root / "data"):
        found = [(path, split) for name, split in _FOLDERS.items() for path in sorted((base / name).glob("*.json"))]
        if found:
            return found
        whole = sorted((base / "all_data").glob("*.json"))
        if whole:
            return [(path, "train") for path in whole]
    alone = sorted(root.glob("*.json"))
    if not alone:
        raise DataError(f"{root} holds no .json files of LEAF; they are in train/ and test/, or in all_data/")
    return [(path, "train") for path in alone]


def _users(path: Path) -> list[tuple[str, NDArray[np.float32], list[str | int]]]:
    """Every user of a file with images (n, values) and labels."""
    content = parse_json(read_text(path), str(path), DataError)
    data = content.get("user_data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or not isinstance(content, dict) or not isinstance(content.get("users"), list):
        raise DataError(f"{path} is no file of LEAF: it lacks users or user_data")
    found = []
    for user in content["users"]:
        own = data.get(user) if isinstance(user, str) else None
        if not isinstance(own, dict) or not isinstance(own.get("x"), list) or not isinstance(own.get("y"), list):
            raise DataError(f"{path}: the user {user!r} has no x and y in user_data")
        if not own["x"] or len(own["x"]) != len(own["y"]):
            both = f"{counted(len(own['x']), 'image')} and {counted(len(own['y']), 'label')}"
            raise DataError(f"{path}: the user {user!r} has {both}; mend it")
        found.append((user, _values(path, user, own["x"]), [_label(path, user, label) for label in own["y"]]))
    return found


def _values(path: Path, user: str, images: list[object]) -> NDArray[np.float32]:
    try:
        array = np.asarray(images, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: images of {user!r} are no lists of equally many numbers") from error
    return array.reshape(len(images), -1)


def _label(path: Path, user: str, label: object) -> str | int:
    if isinstance(label, bool) or not isinstance(label, str | int) or (isinstance(label, int) and label < 0):
        raise DataError(
            f"{path}: an image of {user!r} has the label {label!r:.60}; it must be a number from 0, or a name"
        )
    return label


def _square(values: NDArray[np.float32], where: str) -> NDArray[np.uint8]:
    """Images (N, values) as pixels (N, side, side, channels)."""
    count = values.shape[1]
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if channels * side**2 == count:
            try:
                return to_8_bits(values, white_of(values)).reshape(-1, side, side, channels)
            except PictureError as error:
                raise DataError(f"images of {where}: {error}") from error
    raise DataError(f"images of {where} are lists of {count}, which are no squares of 1 or 3 channels")
