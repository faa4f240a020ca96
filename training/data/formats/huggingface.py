"""Datasets of Hugging Face: a folder of ``save_to_disk``, or ``hf://OWNER/NAME`` on the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.extras import require_extra
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.config.data import Reading
from fedpareto.training.config.inputs import is_hub
from fedpareto.training.data.formats.columns import column, required
from fedpareto.training.data.formats.examples import SPLITS, Examples, examples_of
from fedpareto.training.data.formats.members import Members
from fedpareto.training.data.images import DataError


def read_huggingface(root: Path, reading: Reading) -> Examples:
    """Read a dataset, of which the splits train, validation and test are known.

    Raises:
        DataError: it is missing or damaged, or a column is not known.
        UserError: datasets is not installed.
    """
    require_extra("data", ["datasets"])
    where = str(root).replace("hf:/", "hf://", 1) if is_hub(str(root)) else str(root)
    parts = _parts(where, reading)
    first, *others = parts.values()
    for other in others:
        if other.features != first.features:
            raise DataError(f"the splits of {where} have different columns; all of a dataset have the same")
    columns = list(first.column_names)
    image = required("image", columns, reading, where, _of_type(first, "Image"))
    label = required("label", columns, reading, where, _of_type(first, "ClassLabel"))
    client = column("client", columns, reading, where)
    rows = [(split, number) for split, part in parts.items() for number in range(len(part))]
    labels = [value for part in parts.values() for value in part[label]]
    clients = None if client is None else [value for part in parts.values() for value in part[client]]
    feature = first.features[label]
    names = list(feature.names) if type(feature).__name__ == "ClassLabel" else None

    def place(number: int) -> str:
        split, row = rows[number]
        return f"{where}, {split} row {row}"

    pictures = Members(_fetcher(parts, rows, image, place), place, tuple(range(len(rows))))
    return examples_of(where, pictures, place, labels, [split for split, _ in rows], clients, names)


def _parts(where: str, reading: Reading) -> dict[str, Any]:
    """The dataset of every split that is known by its name."""
    loaded = _from_hub(where, reading) if is_hub(where) else _from_disk(where)
    found: Mapping[str, Any] = loaded if isinstance(loaded, Mapping) else {str(loaded.split or "train"): loaded}
    parts = {name: part for name, part in found.items() if name in SPLITS and len(part)}
    # A dataset of one split is all there is, whatever it is called.
    if not parts and len(found) == 1:
        parts = {"train": next(iter(found.values()))}
    if not parts:
        raise DataError(f"{where} has the splits {', '.join(found)}; none of them is train")
    return parts


def _from_disk(where: str) -> Any:
    import datasets  # noqa: PLC0415 - an optional package, slow to import

    if not Path(where).is_dir():
        raise DataError(
            f"there is no folder {where}; name one that save_to_disk has written, or hf://OWNER/NAME with "
            f"{option('data.download')}"
        )
    try:
        return datasets.load_from_disk(where)
    except Exception as error:
        # Each of the libraries below has errors of its own.
        raise DataError(f"cannot read {where} as save_to_disk writes it: {_reason(error)}") from error


def _from_hub(where: str, reading: Reading) -> Any:
    import datasets  # noqa: PLC0415 - an optional package, slow to import

    if not reading.download:
        raise DataError(f"{where} is on a hub; add {option('data.download')} to fetch it")
    name = where.removeprefix("hf://").removeprefix("datasets/")
    try:
        return datasets.load_dataset(name)
    except Exception as error:
        raise DataError(f"cannot download {where}: {_reason(error)}") from error


def _of_type(part: Any, kind: str) -> list[str]:
    return [name for name, feature in part.features.items() if type(feature).__name__ == kind]


def _fetcher(parts: Mapping[str, Any], rows: list[tuple[str, int]], image: str, place: Any) -> Any:
    """A function that returns the encoded picture of a row."""
    import datasets  # noqa: PLC0415 - an optional package, slow to import

    if type(next(iter(parts.values())).features[image]).__name__ != "Image":
        raise DataError(f"the column {image!r} holds no images; cast it to datasets.Image, or choose another")
    encoded = {
        split: part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        for split, part in parts.items()
    }

    def fetch(number: int) -> bytes:
        split, row = rows[number]
        try:
            value = encoded[split][row][image]
            content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        except Exception as error:
            raise DataError(f"cannot read {place(number)}: {_reason(error)}; restore the dataset") from error
        return bytes(content)

    return fetch


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.160}"
