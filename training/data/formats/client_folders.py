"""Folders of clients: ``ROOT/train/CLIENT/CLASS/*.jpg``, or ``ROOT/CLIENT/CLASS/*.jpg``."""

import os
from pathlib import Path

from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.folders import class_files, class_names, is_leftover, is_there
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.formats.examples import SPLITS, Examples, examples_of
from fedpareto.training.data.images import DataError


def read_client_folders(root: Path, reading: Reading) -> Examples:
    """List the pictures of clients' folders; test and validation images may also lie in CLASS folders.

    Raises:
        DataError: there are none, a client has no images, or something cannot be read.
    """
    del reading
    train = root / "train"
    if not is_there(train):
        return _examples(root, *_of_clients(root, "train"))
    found = _of_clients(train, "train")
    known = set(found[1])
    for name, split in SPLITS.items():
        folder = root / name
        if split == "train" or not is_there(folder):
            continue
        classes = set(class_names(folder))
        more = _of_classes(folder, split) if classes <= known else _of_clients(folder, split)
        found = (found[0] + more[0], found[1] + more[1], found[2] + more[2], found[3] + more[3])
    return _examples(root, *found)


_Rows = tuple[list[Path], list[str], list[str], list[str]]


def _examples(root: Path, paths: list[Path], labels: list[str], clients: list[str], splits: list[str]) -> Examples:
    files = tuple(paths)
    return examples_of(str(root), Files(files), lambda position: str(files[position]), labels, splits, clients)


def _of_clients(folder: Path, split: str) -> _Rows:
    """Paths, labels, clients and split of the pictures of ``folder/CLIENT/CLASS``."""
    rows: _Rows = ([], [], [], [])
    seen: dict[tuple[int, int], Path] = {}
    # Two of one name, or links to one folder, are refused here; empty ones where they are listed.
    class_names(folder)
    for entry in sorted(Path(each) for each in os.scandir(folder) if each.is_dir() and not is_leftover(each.name)):
        status = entry.stat()
        other = seen.setdefault((status.st_dev, status.st_ino), entry)
        if other is not entry:
            raise DataError(f"{entry} and {other} are one folder of a client; remove the link")
        found = class_files(entry)
        rows[0].extend(found.paths)
        rows[1].extend(found.classes[label] for label in found.labels)
        rows[2].extend([entry.name] * len(found.paths))
        rows[3].extend([split] * len(found.paths))
    return rows


def _of_classes(folder: Path, split: str) -> _Rows:
    found = class_files(folder)
    count = len(found.paths)
    return list(found.paths), [found.classes[label] for label in found.labels], [""] * count, [split] * count
