"""Decoded images that are kept: always the pixels of the files as they are, decoded once."""

import os
import pkgutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL
import pytest
import torch
from helpers.images.kept_pictures import check_kept, decoded_alone, names_in, pass_time, read_kept
from helpers.images.pictures import noise, write_pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files import reading, stamps
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.images import DataError


@pytest.mark.parametrize(("channels", "fit"), [(1, "pad"), (3, "crop"), (5, "stretch")])
def test_a_second_reading_decodes_nothing_and_says_the_same(
    tmp_path: Path, folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, channels: int, fit: Any
) -> None:
    # Warnings of Pillow are a part of what is said.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
    write_pictures(tmp_path, {"data": {"a": 3}}, channels if channels == 5 else 3, size=(8, 11))
    pictures = Files(tuple(sorted(path for path in (tmp_path / "data").rglob("*.*"))))
    preparation = Preparation(6, channels, fit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = decoded_alone(pictures, preparation)
    first, second = (read_kept(pictures, preparation) for _ in range(2))
    assert len(decoded) == 3
    assert torch.equal(first[0], expected)
    assert torch.equal(second[0], expected)
    assert first[1] == second[1]
    assert len(first[1]) == (1 if channels == 5 else 2)
    assert len(names_in(folder)) == 1


def test_whoever_writes_into_the_pixels_changes_no_other_reader(pictures: Files) -> None:
    read_kept(pictures)
    mine, others = read_kept(pictures)[0], read_kept(pictures)[0]
    mine += 1
    assert torch.equal(others, decoded_alone(pictures))
    assert check_kept(pictures) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=1, unique=True).map(sorted), st.data())
def test_any_choice_is_taken_out_of_the_whole(
    pictures: Files, decoded: list[str], positions: list[int], data: st.DataObject
) -> None:
    read_kept(pictures)
    decoded.clear()
    part = pictures.subset(torch.tensor(positions))
    check_kept(part)
    some = data.draw(st.lists(st.integers(0, len(positions) - 1), min_size=1, unique=True).map(sorted))
    check_kept(part.subset(torch.tensor(some)))
    assert decoded == []


def test_a_small_part_of_what_is_kept_is_kept_by_itself(folder: Path, pictures: Files, decoded: list[str]) -> None:
    read_kept(pictures)
    (whole,) = names_in(folder)
    part = pictures.subset(torch.tensor([1, 4]))
    check_kept(part)
    check_kept(pictures.subset(torch.tensor([0, 1, 2, 3, 4])))
    assert len(names_in(folder)) == 2
    (folder / whole).unlink()
    decoded.clear()
    assert check_kept(part) == []
    assert decoded == []


def test_a_choice_whose_whole_is_not_kept_decodes_its_own_pictures_only(pictures: Files, decoded: list[str]) -> None:
    for path in pictures.paths[2:]:
        path.write_bytes(b"would not decode")
    part = pictures.subset(torch.tensor([0, 1]))
    check_kept(part)
    check_kept(part)
    assert decoded == ["000.png", "001.png"]


def _rewrite_unseen(path: Path) -> None:
    """Write other pixels of the same size and time, into the same file."""
    status, content = path.stat(), path.read_bytes()
    Image.fromarray(noise(99, 8, 11)).save(path)
    path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _swap(path: Path) -> None:
    other = path.with_name("001.png")
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


@pytest.mark.parametrize("change", [_rewrite_unseen, _swap, lambda path: Image.new("RGB", (8, 8)).save(path)])
def test_files_that_change_are_decoded_again(
    folder: Path, pictures: Files, decoded: list[str], change: Callable[[Path], None]
) -> None:
    before = read_kept(pictures)[0].clone()
    decoded.clear()
    change(pictures.paths[0])
    check_kept(pictures)
    assert len(decoded) == 6
    assert not torch.equal(read_kept(pictures)[0], before)
    assert len(names_in(folder)) == 2


@pytest.mark.parametrize("preparation", [Preparation(7), Preparation(8, 1), Preparation(8, 3, "pad")])
def test_another_preparation_is_another_entry(folder: Path, pictures: Files, preparation: Preparation) -> None:
    read_kept(pictures)
    check_kept(pictures, preparation)
    assert len(names_in(folder)) == 2


def test_another_decoder_or_order_is_another_entry(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_kept(pictures)
    check_kept(Files(pictures.paths[::-1]))
    monkeypatch.setattr(PIL, "__version__", "another")
    check_kept(pictures)
    assert len(names_in(folder)) == 3


def test_an_edited_decoder_is_another_entry(folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    really = pkgutil.get_data
    read_kept(pictures)
    monkeypatch.setattr(pkgutil, "get_data", lambda package, name: (really(package, name) or b"") + b"# edited")
    check_kept(pictures)
    assert len(names_in(folder)) == 2


@pytest.mark.parametrize("field", ["st_size", "st_ino", "st_mtime_ns", "st_ctime_ns"])
def test_whatever_the_file_system_says_of_a_file_tells_its_states_apart(
    pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    really, names = os.stat, ("st_size", "st_ino", "st_mtime_ns", "st_ctime_ns")

    def changed(path: Any) -> Any:
        found = really(path)
        return SimpleNamespace(**{name: getattr(found, name) + (name == field) for name in names})

    read_kept(pictures)
    decoded.clear()
    monkeypatch.setattr(stamps, "os", SimpleNamespace(stat=changed))
    read_kept(pictures)
    assert len(decoded) == 6


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 0), (2.1, 1)])
def test_what_was_written_a_moment_ago_is_not_kept_yet(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: int
) -> None:
    # It may be written again without getting another time.
    pass_time(monkeypatch, seconds)
    assert check_kept(pictures) == []
    assert len(names_in(folder)) == kept


def test_nothing_is_kept_for_who_keeps_it_elsewhere(folder: Path, pictures: Files, decoded: list[str]) -> None:
    read_kept(pictures, keep=False)
    assert names_in(folder) == []
    read_kept(pictures)
    decoded.clear()
    read_kept(pictures, keep=False)
    assert decoded == []


# Files that change while they are decoded.


def _changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], times: int) -> None:
    """Change something after each of the first decodings."""
    really, left = reading.decoded_files, [times]

    def decode(paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> Decoded:
        pixels = really(paths, preparation, listener)
        left[0] -= 1
        if left[0] >= 0:
            change()
        return pixels

    monkeypatch.setattr(reading, "decoded_files", decode)


@pytest.mark.parametrize("times", [1, 3])
def test_what_changes_while_it_is_decoded_is_decoded_again(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    colours = iter(range(9))
    _changing(monkeypatch, lambda: Image.new("L", (8, 8), next(colours)).save(pictures.paths[2]), times)
    assert check_kept(pictures) == []
    assert len(names_in(folder)) == 1
    assert check_kept(pictures) == []
    assert len(names_in(folder)) == 1


def test_what_changes_all_the_time_is_an_error_of_one_line(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = iter(range(99))
    _changing(monkeypatch, lambda: Image.new("L", (8, 8), next(colours)).save(pictures.paths[2]), 99)
    with pytest.raises(DataError, match=r"002\.png changes while it is read; start again when nothing writes"):
        read_kept(pictures)
    assert names_in(folder) == []


def test_what_goes_while_it_is_decoded_is_an_error_that_names_it(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    _changing(monkeypatch, pictures.paths[3].unlink, 1)
    with pytest.raises(DataError, match=r"cannot decode .*003\.png: .*No such file"):
        read_kept(pictures)
    assert names_in(folder) == []


def test_what_comes_while_others_are_decoded_is_not_among_them(
    pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = pictures.paths[0].with_name("006.png")
    _changing(monkeypatch, lambda: Image.new("L", (8, 8)).save(new), 1)
    assert len(read_kept(pictures)[0]) == 6
    decoded.clear()
    assert len(read_kept(pictures)[0]) == 6
    assert decoded == []
    check_kept(Files((*pictures.paths, new)))
    assert len(decoded) == 7
