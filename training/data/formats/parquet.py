"""Parquet files of images: their columns, row group by row group, so that damage is named and may be skipped."""

import bisect
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.extras import require_extra
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.data import Reading
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.formats.examples import SPLITS
from fedpareto.training.data.formats.members import Members
from fedpareto.training.data.images import DataError

#: What these files end in.
PARQUET = (".parquet", ".pq")


@dataclasses.dataclass(frozen=True)
class ParquetRows:
    """Rows of parquet files, the damaged ones left out.

    Attributes:
        tables: of pyarrow, one for every row group.
        origins: file of every table, and the number of its first row there.
        starts: position of every table's first row among all rows.
        remarks: for the user, of what was skipped.
    """

    tables: Sequence[Any]
    origins: Sequence[tuple[Path, int]]
    starts: Sequence[int]
    remarks: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.tables[0].column_names)

    @property
    def image_columns(self) -> list[str]:
        """Columns that hold bytes."""
        return [field.name for field in self.tables[0].schema if _holds_bytes(field.type)]

    def values(self, columns: Sequence[str]) -> dict[str, list[Any]]:
        """Values of some columns, as Python has them."""
        return {name: [value for table in self.tables for value in table[name].to_pylist()] for name in columns}

    def place(self, position: int) -> str:
        """Words for a row."""
        group = bisect.bisect_right(self.starts, position) - 1
        path, first = self.origins[group]
        return f"{path}, row {first + position - self.starts[group]}"

    def splits_by_name(self) -> list[str]:
        """Split of every row by the name of its file, such as test-00000-of-00001.parquet."""
        found: list[str] = []
        for table, (path, _) in zip(self.tables, self.origins, strict=True):
            found += [SPLITS.get(path.stem.partition("-")[0].lower(), "train")] * len(table)
        return found

    def class_names(self, label: str) -> list[str] | None:
        """Names of the classes of labels that are numbers, where the file says so as datasets of Hugging Face do."""
        metadata: Mapping[bytes, bytes] = self.tables[0].schema.metadata or {}
        try:
            feature = json.loads(metadata[b"huggingface"])["info"]["features"][label]
            return list(feature["names"]) if feature["_type"] == "ClassLabel" else None
        except (KeyError, TypeError, ValueError):
            return None

    def pictures(self, image: str) -> Files | Members:
        """The pictures of a column: files by their paths relative to the table, or bytes."""
        if image not in self.image_columns:
            texts = self.values([image])[image]
            folders = [
                path.parent for table, (path, _) in zip(self.tables, self.origins, strict=True) for _ in table[image]
            ]
            return Files(tuple(folder / str(text) for folder, text in zip(folders, texts, strict=True)))
        held = [table[image] for table in self.tables]

        def fetch(number: int) -> bytes:
            group = bisect.bisect_right(self.starts, number) - 1
            value = held[group][number - self.starts[group]].as_py()
            found = value.get("bytes") if isinstance(value, dict) else value
            if found is None:
                raise DataError(f"{self.place(number)} holds no bytes of a picture; mend or remove it")
            return bytes(found)

        count = sum(len(table) for table in self.tables)
        return Members(fetch, self.place, tuple(range(count)))


def read_parquet(paths: Sequence[Path], reading: Reading) -> ParquetRows:
    """Read parquet files.

    Raises:
        DataError: one is missing or damaged; it names the rows. Those are left out if damage is to be skipped.
        UserError: pyarrow is not installed.
    """
    require_extra("data", ["pyarrow"])
    import pyarrow.parquet as pq  # noqa: PLC0415 - an optional package

    tables: list[Any] = []
    origins: list[tuple[Path, int]] = []
    lost = []
    for path in paths:
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
        except Exception as error:
            # pyarrow raises a type of its own for every kind of damage.
            raise DataError(f"cannot read {path}: {_reason(error)}; restore it") from error
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            try:
                tables.append(file.read_row_group(group))
                origins.append((path, first))
            except Exception as error:
                damage = f"{path} is damaged in rows {first} to {first + count - 1} ({_reason(error)})"
                if not reading.skip_damaged:
                    skip = option("data.skip-damaged", "true")
                    raise DataError(f"{damage}; restore it, or leave these rows out with {skip}") from error
                lost.append((count, damage))
            first += count
    if not sum(map(len, tables)):
        raise DataError(f"{paths[0]} holds no rows that can be read")
    for table, (path, _) in zip(tables, origins, strict=True):
        if table.column_names != tables[0].column_names:
            raise DataError(f"{path} has other columns than {origins[0][0]}; one table has the same in all its files")
    remarks = [f"skipped: {counted(sum(count for count, _ in lost), 'row')}, as {lost[0][1]}"] if lost else []
    starts = [sum(map(len, tables[:number])) for number in range(len(tables))]
    return ParquetRows(tables, origins, starts, remarks)


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.160}"


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - an optional package

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
