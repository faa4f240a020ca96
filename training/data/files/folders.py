"""Folders of classes: the image files of each class, and the files that are skipped.

``ROOT/train/CLASS/…`` holds the images of a class at any depth. Hidden files and those left by tools are skipped and
counted. Links are followed, and each real folder and file is read once: a link never adds a class or an image a second
time, and never makes a loop.
"""

import dataclasses
import functools
import os
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedpareto.training.data.files.preparation import ARRAY_SUFFIX, ARRAY_SUFFIXES
from fedpareto.training.data.images import DataError

#: Names that systems and tools leave in folders, in lower case; those that begin with a dot are hidden besides.
_LEFTOVERS = frozenset(
    {
        "__macosx", "@eadir", "@tmp", "#recycle", "$recycle.bin", "system volume information", "lost+found",
        "_gsdata_", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__pycache__",
    }
)  # fmt: skip

#: Formats that Pillow names and cannot decode by itself.
_UNDECODABLE = ("MPEG",)

_LAYOUT = "images belong in ROOT/train/CLASS and ROOT/test/CLASS, or those of a node's data-folder in FOLDER/CLASS"


@dataclasses.dataclass
class Skipped:
    """Files of a folder that were skipped, by kind."""

    leftovers: list[Path] = dataclasses.field(default_factory=list)
    others: list[Path] = dataclasses.field(default_factory=list)
    outside: list[Path] = dataclasses.field(default_factory=list)
    repeated: list[Path] = dataclasses.field(default_factory=list)

    def words(self, folder: Path) -> str | None:
        """Return one line with the number and an example of each kind; None if nothing was skipped."""
        kinds = (
            (self.leftovers, "hidden or left by a tool"),
            (self.others, "no image"),
            (self.outside, "outside the class folders"),
            (self.repeated, "linked and read already"),
        )
        parts = [
            f"{len(paths):,} {kind} ({'e.g. ' if len(paths) > 1 else ''}{paths[0].relative_to(folder)})"
            for paths, kind in kinds
            if paths
        ]
        return f"skipped in {folder}: {', '.join(parts)}" if parts else None


@dataclasses.dataclass(frozen=True)
class ClassFiles:
    """Image files of a folder of classes.

    Attributes:
        classes: class names in Unicode's composed form (NFC), sorted.
        paths: files, class by class, sorted within.
        labels: label of every file, an index into ``classes``.
        skipped: files that are no images.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    skipped: Skipped


def class_files(folder: Path) -> ClassFiles:
    """Return the image files of ``folder/CLASS/``, at any depth.

    Raises:
        DataError: the folder or a class holds none, a link is broken, or something cannot be read.
    """
    skipped = Skipped()
    roots = _class_folders(folder, skipped)
    found = _files_of(folder, roots, skipped)
    labels = tuple(label for label, files in enumerate(found) for _ in files)
    for root, files in zip(roots.values(), found, strict=True):
        if not files:
            kinds = f"files {ARRAY_SUFFIX}, or pictures such as .jpg and .png"
            raise DataError(f"{root} holds no images ({kinds}){_left_in(root, skipped)}")
    return ClassFiles(tuple(roots), tuple(path for files in found for path in files), labels, skipped)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes in ``folder``, composed (NFC) and sorted.

    Raises:
        DataError: there are none, two look equal, or the folder cannot be read.
    """
    return tuple(_class_folders(folder, Skipped()))


def holds_classes(folder: Path) -> bool:
    """Return True if there is a folder with any class in it.

    Raises:
        DataError: it cannot be read.
    """
    return is_there(folder) and any(_is_folder(entry) for entry in _entries(folder, Skipped()))


def check_same_classes(folder: Path, other: Path) -> None:
    """Refuse two folders that have different classes.

    Raises:
        DataError: one lacks a class of the other, or cannot be read.
    """
    for having, lacking in ((folder, other), (other, folder)):
        missing = sorted(set(class_names(having)) - set(class_names(lacking)))
        if missing:
            raise DataError(f"{lacking} lacks the class {missing[0]!r}, which {having} has")


def all_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, images or not; links are followed, leftovers and broken links left out."""
    seen: set[tuple[int, int]] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        fresh = _is_new(Path(current), seen)
        folders[:] = sorted(name for name in folders if fresh and not is_leftover(name))
        for name in sorted(files):
            if fresh and not is_leftover(name) and os.path.exists(Path(current, name)):
                yield Path(current, name)


def is_there(path: Path) -> bool:
    """Return True if anything exists at a path; probing fails as reading does.

    Raises:
        DataError: it is a broken link, may not be looked at, or is no valid path.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and os.path.islink(path):
            raise DataError(f"{path} is a broken link to {path.readlink()}; mend or remove it") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return False
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read {str(path)!r}: {reason}; mend its permissions or name") from error
    return True


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that are read as images, in lower case."""
    from PIL import Image, ImageFile  # noqa: PLC0415 - its formats are slow to import

    formats = Image.registered_extensions()
    stubs = {
        name
        for name, (opener, _) in Image.OPEN.items()
        if name in _UNDECODABLE or (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))
    }
    readable = Image.OPEN.keys() - stubs
    return frozenset({suffix.lower() for suffix, name in formats.items() if name in readable} | {*ARRAY_SUFFIXES})


def is_leftover(name: str) -> bool:
    """Return True if a file or folder of this name is hidden, or belongs to a system or a tool."""
    return name.startswith((".", "~$")) or name.lower() in _LEFTOVERS


def _class_folders(folder: Path, skipped: Skipped) -> dict[str, Path]:
    """Return the folder of every class by its composed name, sorted."""
    roots: dict[str, Path] = {}
    for entry in _entries(folder, skipped):
        if not _is_folder(entry):
            skipped.outside.append(Path(entry))
            continue
        name = _composed(entry)
        if name in roots:
            # One of them may be a half-copied other: which images are meant only the user knows.
            raise DataError(
                f"{folder} holds two folders whose names look equal, {roots[name].name!a} and {entry.name!a}; "
                "put their images into one"
            )
        roots[name] = Path(entry)
    if not roots:
        raise DataError(f"{folder} is empty: it holds no CLASS folders")
    return dict(sorted(roots.items()))


def _files_of(folder: Path, roots: dict[str, Path], skipped: Skipped) -> list[list[Path]]:
    """Return the image files of every class, sorted."""
    real: list[list[str]] = [[] for _ in roots]
    suffixes = image_suffixes()
    links: list[tuple[int, Path]] = []
    for label, entry in _walk(folder, roots, skipped):
        if os.path.splitext(entry.name)[1].lower() not in suffixes:
            skipped.others.append(Path(entry))
        elif entry.is_symlink():
            links.append((label, Path(entry)))
        else:
            real[label].append(entry.path)
    # Texts are sorted as paths are, in a tenth of the time.
    found = [[Path(text) for text in sorted(texts, key=_in_parts)] for texts in real]
    if links:
        _add_linked(found, sorted(links), skipped)
        found = [sorted(files) for files in found]
    return found


def _in_parts(text: str) -> str:
    """Return a text that sorts like the parts of a path: their separator comes before all characters in them."""
    return text.replace(os.sep, "\0")


def _add_linked(found: list[list[Path]], links: Sequence[tuple[int, Path]], skipped: Skipped) -> None:
    """Add links to files that are not read already, so that no image is there twice or in two classes."""
    seen = {_identity(path) for files in found for path in files}
    for label, path in links:
        if _is_new(path, seen):
            found[label].append(path)
        else:
            skipped.repeated.append(path)


def _walk(folder: Path, roots: dict[str, Path], skipped: Skipped) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Yield (label, file); real folders before linked ones, so that a link takes no images from another class."""
    # Through a link nobody reads the split as a whole, nor what it lies in.
    seen = {_identity(above) for above in (folder.resolve(), *folder.resolve().parents)}
    entered = set(roots.values())
    for root in roots.values():
        _enter(root, seen)
    waiting = deque(enumerate(roots.values()))
    linked: deque[tuple[int, Path]] = deque()
    while waiting or linked:
        label, current = waiting.popleft() if waiting else linked.popleft()
        if current not in entered and not _is_new(current, seen):
            skipped.repeated.append(current)
            continue
        for entry in _entries(current, skipped):
            if _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append((label, Path(entry)))
            elif entry.is_file():
                yield label, entry
            else:
                skipped.others.append(Path(entry))


def _enter(root: Path, seen: set[tuple[int, int]]) -> None:
    if not _is_new(root, seen):
        raise DataError(f"{root} is a link to the folder of another class, or to one that holds it; remove it")


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Return True if a real folder or file is met for the first time."""
    identity = _identity(folder)
    fresh = identity not in seen
    seen.add(identity)
    return fresh


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path, skipped: Skipped) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted, without leftovers.

    The folder's own list tells files from folders, so none of 50,000 files is opened for that.

    Raises:
        DataError: it is no folder, may not be read, or holds a broken link.
    """
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise DataError(f"there is no folder {folder}; {_LAYOUT}") from error
    except NotADirectoryError as error:
        raise DataError(f"{folder} is a file, and a folder is expected; {_LAYOUT}") from error
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}; mend its permissions") from error
    kept: list[os.DirEntry[str]] = []
    for entry in entries:
        if is_leftover(entry.name):
            skipped.leftovers.append(Path(entry))
        else:
            kept.append(entry)
    # A folder may be listed and yet not entered: one of its files tells for all.
    for entry in kept[:1]:
        _check_there(entry)
    return kept


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True if an entry is a folder or a link to one.

    Raises:
        DataError: it is a broken link, or may not be looked at.
    """
    if entry.is_symlink():
        _check_there(entry)
    return entry.is_dir()


def _check_there(entry: os.DirEntry[str]) -> None:
    if not is_there(Path(entry)):
        raise DataError(f"{entry.path} has gone while it was read; try again")


def _composed(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name of the folder {entry.path!a} is no valid UTF-8; rename it") from error
    return unicodedata.normalize("NFC", entry.name)


def _left_in(root: Path, skipped: Skipped) -> str:
    """Return the words about skipped files below a class folder, for an error."""
    inside = [path for field in dataclasses.astuple(skipped) for path in field if root in path.parents]
    return f"; {len(inside)} of its files or folders were skipped, e.g. {inside[0].relative_to(root)}" if inside else ""
