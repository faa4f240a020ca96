"""Tars in the layout of WebDataset: ``KEY.jpg`` beside ``KEY.cls``, or ``KEY.json`` with a label and a client.

``data.root`` names one tar, a pattern such as ``shard-{000..010}.tar``, or a folder, in which tars are of the split
that their folder's or their own name begins with.
"""

import dataclasses
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.folders import image_suffixes
from fedpareto.training.data.formats.columns import column, required
from fedpareto.training.data.formats.examples import SPLITS, Examples, examples_of
from fedpareto.training.data.formats.members import Members
from fedpareto.training.data.formats.names import Name
from fedpareto.training.data.images import DataError

_BLOCK = tarfile.BLOCKSIZE

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclasses.dataclass(frozen=True)
class _Part:
    """File inside of a tar: where its bytes are."""

    name: str
    start: int
    size: int


@dataclasses.dataclass(frozen=True)
class _Sample:
    tar: Path
    split: str
    image: _Part
    label: Name
    client: Name | None

    def __str__(self) -> str:
        return f"{self.tar}: {self.image.name}"


def read_webdataset(root: Path, reading: Reading) -> Examples:
    """List the samples of tars; their pictures stay where they are.

    Raises:
        DataError: a tar is missing or damaged, or a sample has no label; it names the member.
    """
    samples: list[_Sample] = []
    lost: list[str] = []
    for path in _tars(root):
        split = _split(path, root)
        samples += _samples(path, split, reading, lost)
    if not samples:
        raise DataError(f"{root} holds no pictures with labels")
    for sample in samples:
        if isinstance(sample.label, int) and sample.label < 0:
            raise DataError(f"{sample} has the label {sample.label}; it must be a number from 0, or a name")

    def fetch(number: int) -> bytes:
        sample = samples[number]
        return _content(sample.tar, sample.image)

    def name(number: int) -> str:
        return str(samples[number])

    clients = [sample.client for sample in samples]
    training = [sample.client for sample in samples if sample.split == "train"]
    known = None if all(client is None for client in training) else clients
    pictures = Members(fetch, name, tuple(range(len(samples))))
    labels, splits = [sample.label for sample in samples], [sample.split for sample in samples]
    remarks = [f"skipped: {counted(len(lost), 'damaged place')} in tars, first {lost[0]}"] if lost else []
    return examples_of(str(root), pictures, name, labels, splits, known, None, remarks)


def _tars(root: Path) -> list[Path]:
    numbers = _RANGE.search(root.name)
    if numbers is not None:
        first, last = numbers.groups()
        paths = [
            root.with_name(root.name.replace(numbers.group(), str(number).zfill(len(first))))
            for number in range(int(first), int(last) + 1)
        ]
    else:
        paths = sorted(root.rglob("*.tar")) if root.is_dir() else [root]
    if not paths:
        raise DataError(f"{root} holds no .tar files")
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise DataError(
            f"there is no file {missing}; data.root names a tar, shard-{{000..010}}.tar, or a folder of tars"
        )
    return paths


def _split(path: Path, root: Path) -> str:
    """Split of a tar by the first of its folders, or of the words of its own name, that is one."""
    if not root.is_dir():
        return "train"
    words = [*path.relative_to(root).parts[:-1], re.split(r"[-_.]", path.stem)[0]]
    return next((SPLITS[word.lower()] for word in words if word.lower() in SPLITS), "train")


def _samples(path: Path, split: str, reading: Reading, lost: list[str]) -> Iterator[_Sample]:
    """Yield the samples of a tar; what is damaged is refused, or noted as lost."""

    def fault(words: str) -> None:
        if not reading.skip_damaged:
            raise DataError(f"{words}; restore it, or leave it out with {option('data.skip-damaged', 'true')}")
        lost.append(words)

    groups: dict[str, dict[str, _Part]] = {}
    for part in _members(path, fault):
        folder, _, file = part.name.rpartition("/")
        key, _, kind = file.partition(".")
        if key and kind:
            groups.setdefault(f"{folder}/{key}", {})[f".{kind.lower()}"] = part
    suffixes = image_suffixes()
    for parts in groups.values():
        images = [part for kind, part in parts.items() if kind in suffixes]
        if len(images) > 1:
            raise DataError(f"{path}: the sample of {images[0].name} has a second picture, {images[1].name}; keep one")
        if not images:
            continue
        try:
            yield _Sample(path, split, images[0], *_described(path, parts, images[0], reading))
        except DataError as error:
            fault(str(error))


def _members(path: Path, tell: Callable[[str], None]) -> Iterator[_Part]:
    """Yield the files of a tar with the places of their bytes; damage between or in them is told."""
    size, end = path.stat().st_size, 0
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as tar:
            for member in tar:
                if member.offset > end and not _is_zero(path, end, member.offset):
                    tell(f"{path} is damaged at byte {end}, before {member.name}")
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK if member.isfile() else tar.offset
                if member.offset_data + member.size > size:
                    tell(f"{path} ends within {member.name}")
                elif member.isfile():
                    yield _Part(member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if end:
            tell(f"{path} ends in the middle, behind byte {min(end, size)}")
            return
        raise DataError(
            f"cannot read {path}: {str(error) or type(error).__name__}; give an uncompressed .tar"
        ) from error
    if end < size and not _is_zero(path, end, size):
        tell(f"{path} is damaged at byte {end}, behind its last whole member")


def _is_zero(path: Path, start: int, end: int) -> bool:
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            block = file.read(min(1 << 20, end - start))
            if not block or block.strip(b"\0"):
                return not block
            start += len(block)
    return True


def _content(path: Path, part: _Part) -> bytes:
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), part.size, part.start)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _described(path: Path, parts: dict[str, _Part], image: _Part, reading: Reading) -> tuple[Name, Name | None]:
    """Label and client of a sample."""
    where, fields = f"{path}: {image.name}", {}
    if ".json" in parts:
        content = parse_json(_text(path, parts[".json"]), f"{path}: {parts['.json'].name}", DataError)
        if not isinstance(content, dict):
            raise DataError(f"{path}: {parts['.json'].name} holds no names with values")
        fields = {str(name): value for name, value in content.items()}
    client_key = column("client", list(fields), reading, where) if reading.client in (None, *fields) else None
    client = None if client_key is None else _named(fields[client_key], where)
    if ".cls" in parts:
        text = _text(path, parts[".cls"]).strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else text, client
    if not fields:
        raise DataError(f"{where} has no label: neither .cls nor .json is beside it")
    return _named(fields[required("label", list(fields), reading, where)], where), client


def _named(value: object, where: str) -> Name:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where} has {value!r:.60} for a label or a client; it must be text or a whole number")
    return value


def _text(path: Path, part: _Part) -> str:
    try:
        return _content(path, part).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {part.name} is no text") from error
