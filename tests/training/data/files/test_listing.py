from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images.pictures import noise, write_pictures
from numpy.typing import NDArray

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files.listing import Listing, constant_words
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Arrays, Files
from fedpareto.training.data.images import ImageSet


def _listing(folder: Path, held_out: int = 0) -> Listing:
    write_pictures(folder, {"part": {"a": 4, "b": 3}})
    paths = tuple(sorted(folder.rglob("*.png")))
    return Listing(torch.tensor([0] * 4 + [1] * 3), ("a", "b"), Files(paths), held_out)


def test_images_know_the_files_they_came_from(tmp_path: Path) -> None:
    data = _listing(tmp_path).read(Preparation(8))
    paths = sorted(tmp_path.rglob("*.png"))
    assert data.paths == tuple(paths)
    assert data.subset(torch.tensor([5, 1])).paths == (paths[5], paths[1])
    assert data.on(torch.device("cpu")).paths == data.paths
    arrays = Listing(torch.tensor([0]), ("a",), Arrays("noise", noise(0)[None])).read(Preparation(8))
    assert arrays.paths is arrays.subset(torch.tensor([0])).paths is None


def test_a_subset_reads_its_own_images_only(tmp_path: Path) -> None:
    listing = _listing(tmp_path)
    whole, positions = listing.read(Preparation(8)), torch.tensor([0, 2, 5])
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        if number not in positions:
            path.unlink()
    part = listing.subset(positions).read(Preparation(8))
    assert torch.equal(part.loaded(), whole.loaded()[positions])
    assert torch.equal(part.labels, whole.labels[positions])
    assert part.digest() == whole.subset(positions).digest()


@pytest.mark.parametrize(("positions", "held_out"), [([0, 1, 2], 0), ([4, 5, 6], 2), ([0, 5, 6], 2), ([3, 6], 1)])
def test_a_subset_knows_what_of_it_is_held_out(tmp_path: Path, positions: list[int], held_out: int) -> None:
    assert _listing(tmp_path, held_out=2).subset(torch.tensor(positions)).held_out == held_out


def _picture(kind: str, seed: int) -> NDArray[np.uint8]:
    if kind == "flat":
        return np.full((8, 8, 3), seed, dtype=np.uint8)
    if kind == "coloured":
        return np.broadcast_to(noise(seed, 1, 1), (8, 8, 3))
    return noise(seed) if kind == "noise" else 100 + noise(seed) % {"nearly": 5, "faint": 9}[kind]


def _set(*classes: list[str]) -> ImageSet:
    """Images by class: noise, flat ones, nearly flat ones, flat ones of colours."""
    pixels = [_picture(kind, seed) for seed, kind in enumerate(kind for kinds in classes for kind in kinds)]
    labels = [label for label, kinds in enumerate(classes) for _ in kinds]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return ImageSet(images, torch.tensor(labels), tuple("abcdef"[: len(classes)]))


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([["noise"] * 3, ["noise"] * 2], None),
        ([["noise", "noise", "flat"], ["noise"] * 2], None),
        ([["faint"] * 3, ["noise"] * 2], None),
        ([["noise"] * 5, ["flat", "nearly"]], "nearly of one colour: 2 of 7 pictures, all of 'b' among them"),
        ([["coloured"] * 2, ["noise"] * 4], "nearly of one colour: 2 of 6 pictures, all of 'a' among them"),
        ([["flat", "flat", "noise"], ["nearly", "noise"]], "nearly of one colour: 3 of 5 pictures"),
        (
            [["flat"]] * 5,
            "nearly of one colour: 5 of 5 pictures, all of 'a', 'b', 'c' and others among them",
        ),
    ],
)
def test_pictures_that_show_nothing_are_told_of_with_their_classes(classes: list[list[str]], words: str | None) -> None:
    assert constant_words(_set(*classes)) == (None if words is None else f"warning: {words}")


def test_what_shows_nothing_is_told_when_it_is_read() -> None:
    remarks: list[str] = []
    flat = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    Listing(torch.tensor([0, 0]), ("a",), Arrays("flat", flat)).read(
        Preparation(8, 1), ProgressListener(remark=remarks.append)
    )
    assert remarks == ["warning: nearly of one colour: 2 of 2 pictures, all of 'a' among them"]
