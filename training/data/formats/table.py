"""Tables of images: CSV with the paths of pictures, parquet with their paths or bytes.

A row has the path, relative to the table, the label, and perhaps the client and the split of an image.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.storage.files import read_bytes
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.formats.columns import SPLIT, column, required
from fedpareto.training.data.formats.examples import Examples, examples_of
from fedpareto.training.data.formats.members import Members
from fedpareto.training.data.formats.parquet import PARQUET, read_parquet
from fedpareto.training.data.images import DataError

#: What may part the fields of a line.
_DELIMITERS = (",", ";", "\t")


def read_table(root: Path, reading: Reading) -> Examples:
    """Read a table, or a folder of parquet files as datasets are shared.

    Raises:
        DataError: it is missing, damaged or lacks a column, a row is incomplete, a picture is not there.
        UserError: a package is not installed.
    """
    if root.is_dir():
        tables = sorted(path for path in root.rglob("*") if path.suffix.lower() in PARQUET)
        if not tables:
            raise DataError(f"{root} is a folder without .parquet files; data.root of a table names a .csv or .parquet")
        return _of_parquet(root, tables, reading)
    return _of_parquet(root, [root], reading) if root.suffix.lower() in PARQUET else _of_csv(root, reading)


def _of_csv(path: Path, reading: Reading) -> Examples:
    header, rows = _lines(path)
    where = str(path)
    image, label = required("image", header, reading, where), required("label", header, reading, where)
    client = column("client", header, reading, where)
    split = next((name for name in header if name.strip().lower() in SPLIT), None)
    places = [number for number, _ in rows]

    def place(position: int) -> str:
        return f"{path}, line {places[position]}"

    def values(name: str | None) -> list[str] | None:
        return None if name is None else [fields[header.index(name)].strip() for _, fields in rows]

    paths = []
    for position, text in enumerate(values(image) or []):
        picture = path.parent / text
        if not text or "\0" in text or not picture.is_file():
            raise DataError(f"{place(position)}: there is no file {str(picture)!r}; mend the row, or remove it")
        paths.append(picture)
    return examples_of(where, Files(tuple(paths)), place, values(label) or [], values(split), values(client))


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header of a CSV file, and its rows with the number of the line each ends in."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no table in UTF-8 ({error.reason} at byte {error.start}); write it as such"
        ) from error
    first = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; mend its quotes") from error
    if len(rows) < 2:
        raise DataError(f"{path} holds no rows; it needs a header such as path,label,client and a row an image")
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) < len(header):
        raise DataError(f"{path} has a column twice in its header {','.join(header)}; name each once")
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise DataError(
                f"{path}, line {number}: {counted(len(fields), 'field')}, and the header has {len(header)}; quote "
                f"fields that hold {delimiter!r}"
            )
    return header, rows[1:]


def _of_parquet(root: Path, tables: Sequence[Path], reading: Reading) -> Examples:
    read, where = read_parquet(tables, reading), str(root)
    image = required("image", read.columns, reading, where, read.image_columns)
    label = required("label", read.columns, reading, where)
    client = column("client", read.columns, reading, where)
    split = next((name for name in read.columns if name.strip().lower() in SPLIT), None)
    values = read.values([label, *([client] if client else []), *([split] if split else [])])
    splits = [str(name) for name in values[split]] if split else read.splits_by_name() if root.is_dir() else None
    names: Sequence[str] | None = read.class_names(label)
    clients = values[client] if client else None
    pictures = read.pictures(image)
    if not isinstance(pictures, Members):
        pictures = _checked_files(pictures, read.place)
    return examples_of(where, pictures, read.place, _plain(values[label]), splits, clients, names, read.remarks)


def _plain(labels: Sequence[Any]) -> list[str | int | None]:
    return [label if label is None or isinstance(label, int) else str(label) for label in labels]


def _checked_files(pictures: Files, place: Any) -> Files:
    for position, picture in enumerate(pictures.paths):
        if not picture.is_file():
            raise DataError(f"{place(position)}: there is no file {str(picture)!r}; mend the row, or remove it")
    return pictures
