"""Small data sets in the formats that people have them in: pictures of the digits, each of a client."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fedpareto.training.data.digits import read_digits


class Row(NamedTuple):
    """An image of the digits with its label, client and split."""

    grey: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"
    label: str
    client: str
    split: str

    @property
    def png(self) -> bytes:
        written = io.BytesIO()
        Image.fromarray(self.grey).save(written, "PNG")
        return written.getvalue()


def rows(clients: Sequence[str] = ("Zoë", "Ann, B.", "山"), count: int = 60, test: int = 20) -> list[Row]:
    """Digits 0 and 1, in turn of every client; the last are test images."""
    pictures, labels = read_digits()
    chosen = np.flatnonzero(labels < 2)[: count + test]
    grey = np.rint(pictures[chosen] * (255 / 16)).astype(np.uint8)
    return [
        Row(grey[i], ("zero", "one")[labels[chosen[i]]], clients[i % len(clients)], "train" if i < count else "test")
        for i in range(count + test)
    ]


def write_table(folder: Path, made: Sequence[Row]) -> Path:
    """A CSV with odd quoting beside its pictures."""
    (folder / "pics, all").mkdir(parents=True)
    lines: list[list[str]] = [["path", "label", "client", "split"]]
    for number, row in enumerate(made):
        name = f'pics, all/"{number}" é.png'
        (folder / name).write_bytes(row.png)
        lines.append([name, row.label, row.client, row.split])
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def write_client_folders(folder: Path, made: Sequence[Row]) -> Path:
    for number, row in enumerate(made):
        place = folder / row.split / (row.client if row.split == "train" else "") / row.label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03}.png").write_bytes(row.png)
    return folder


def write_leaf(folder: Path, made: Sequence[Row]) -> Path:
    for split in ("train", "test"):
        users: dict[str, dict[str, list[Any]]] = {}
        for row in made:
            if row.split == split:
                own = users.setdefault(row.client, {"x": [], "y": []})
                own["x"].append((row.grey / 255).flatten().tolist())
                own["y"].append(("zero", "one").index(row.label))
        (folder / split).mkdir(parents=True)
        content = {"users": list(users), "num_samples": [len(own["y"]) for own in users.values()], "user_data": users}
        (folder / split / "all_data_0.json").write_text(json.dumps(content))
    return folder


def write_parquet(path: Path, made: Sequence[Row], row_group: int = 16) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": [{"bytes": row.png, "path": None} for row in made],
            "label": [row.label for row in made],
            "client": [row.client for row in made],
            "split": [row.split for row in made],
        }
    )
    pq.write_table(table, path, row_group_size=row_group, compression="none", write_page_checksum=True)
    return path


def write_tars(folder: Path, made: Sequence[Row], shards: int = 3) -> Path:
    """Shards of training images and one of test images, as WebDataset lays them out."""
    folder.mkdir(parents=True, exist_ok=True)
    training = [row for row in made if row.split == "train"]
    parts = {f"train-{number:03}.tar": training[number::shards] for number in range(shards)}
    for name, part in {**parts, "test-000.tar": [row for row in made if row.split == "test"]}.items():
        with tarfile.open(folder / name, "w") as tar:
            for number, row in enumerate(part):
                _add(tar, f"{number:04}.png", row.png)
                _add(tar, f"{number:04}.json", json.dumps({"label": row.label, "client": row.client}).encode())
    return folder


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_npz(path: Path, made: Sequence[Row]) -> Path:
    arrays: dict[str, Any] = {"classes": np.array(["one", "zero"])}
    for split in ("train", "test"):
        part = [row for row in made if row.split == split]
        arrays[f"x_{split}"] = np.stack([row.grey for row in part])
        arrays[f"y_{split}"] = np.array([("one", "zero").index(row.label) for row in part])
        if split == "train":
            arrays["clients"] = np.array([row.client for row in part])
    np.savez(path, **arrays)
    return path


def write_huggingface(folder: Path, made: Sequence[Row]) -> Path:
    import datasets

    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "digit": datasets.ClassLabel(names=["one", "zero"]),
            "user": datasets.Value("string"),
        }
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {
                "picture": [{"bytes": row.png, "path": None} for row in made if row.split == split],
                "digit": [("one", "zero").index(row.label) for row in made if row.split == split],
                "user": [row.client for row in made if row.split == split],
            },
            features=features,
        )
        for split in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


#: Writes rows into a new folder and returns data.root, by data.name.
WRITERS: dict[str, Callable[[Path, Sequence[Row]], Path]] = {
    "table": write_table,
    "clientfolders": write_client_folders,
    "leaf": write_leaf,
    "webdataset": write_tars,
    "huggingface": write_huggingface,
    "npz": lambda folder, made: write_npz(folder.with_suffix(".npz"), made),
    "parquet": lambda folder, made: write_parquet(folder.with_suffix(".parquet"), made),
}
