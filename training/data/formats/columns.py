"""Columns of data that have a choice: found by their names where only one fits."""

from collections.abc import Sequence

from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.config.data import Reading
from fedpareto.training.data.images import DataError

#: Names that say what a column holds, in lower case.
USUAL = {
    "image": ("path", "image", "img", "file", "file_name", "filename"),
    "label": ("label", "class", "labels", "fine_label", "coarse_label"),
    "client": ("client", "client_id", "user", "user_id", "writer", "writer_id", "hospital", "site"),
}

#: Columns with the split of an image.
SPLIT = ("split",)


def column(kind: str, columns: Sequence[str], reading: Reading, where: str, among: Sequence[str] = ()) -> str | None:
    """The column of images, labels or clients; None if there is none.

    Args:
        kind: image, label or client.
        columns: all columns.
        reading: the columns that were chosen.
        where: the file or folder.
        among: those that are known by their type to be of the kind.

    Raises:
        DataError: the one that was chosen is not there, or several may be meant.
    """
    chosen: str | None = getattr(reading, kind)
    there = ", ".join(map(repr, columns))
    if chosen is not None:
        if chosen not in columns:
            raise DataError(f"{where} has no column {chosen!r}, which data.{kind}_column names; it has {there}")
        return chosen
    found = list(among) or [name for name in columns if name.strip().lower() in USUAL[kind]]
    if len(found) > 1:
        raise DataError(
            f"{where} has {len(found)} columns that may hold the {kind} of an image, "
            f"{', '.join(map(repr, found))}; choose one with {option(f'data.{kind}-column')}"
        )
    return found[0] if found else None


def required(kind: str, columns: Sequence[str], reading: Reading, where: str, among: Sequence[str] = ()) -> str:
    """The column of images or labels.

    Raises:
        DataError: there is none, or several may be meant.
    """
    found = column(kind, columns, reading, where, among)
    if found is None:
        raise DataError(
            f"{where} has no column {USUAL[kind][0]!r}; it has {', '.join(map(repr, columns))}: name the one with the "
            f"{kind} of an image with {option(f'data.{kind}-column')}"
        )
    return found
