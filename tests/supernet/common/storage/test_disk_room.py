"""Room for what is kept: how much is allowed, and what makes way."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.disk_room import NoRoomError, kept_bytes, make_room, mark_used


class _Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("text", "expected"), [("", 20 * 10**9), ("0", 0), ("0B", 0), ("3 GB", 3 * 10**9), ("7", 7)])
def test_the_size_is_read_as_people_write_sizes(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", text)
    assert kept_bytes() == expected
    monkeypatch.delenv("FEDPARETO_CACHE_SIZE")
    assert kept_bytes() == 20 * 10**9


@pytest.mark.parametrize("text", ["much", "-3MB", "4iB", "1e999", " "])
def test_a_size_that_is_none_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", text)
    with pytest.raises(UserError, match=r"^FEDPARETO_CACHE_SIZE is wrong: .*, or 0 to keep nothing$"):
        kept_bytes()


@runs(60)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=6), st.integers(0, 80), st.integers(0, 120))
def test_the_oldest_make_way_and_no_more_of_them_than_must(
    files: list[tuple[int, int]], needed: int, most: int
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("FEDPARETO_CACHE_SIZE", str(most))
        for number, (size, age) in enumerate(files):
            path = folder / f"{number}.kept"
            path.write_bytes(b"x" * size)
            os.utime(path, (1000 - age, 1000 - age))
        if needed > most:
            with pytest.raises(NoRoomError):
                make_room(folder, ".kept", needed)
            assert len(os.listdir(folder)) == len(files)
            return
        make_room(folder, ".kept", needed)
        left = {int(path.stem): files[int(path.stem)] for path in folder.iterdir()}
        gone = {number: file for number, file in enumerate(files) if number not in left}
        assert sum(size for size, _ in left.values()) + needed <= most
        if gone and left:
            assert min(age for _, age in gone.values()) >= max(age for _, age in left.values())
        if gone:
            # With the one that went last all would not have fitted.
            youngest = min(age for _, age in gone.values())
            largest = max(size for size, age in gone.values() if age == youngest)
            assert sum(size for size, _ in left.values()) + largest + needed > most


def test_only_files_of_the_suffix_make_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "0")
    for name in ("a.kept", "a.other", ".fedpareto-b.kept"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.kept").mkdir()
    (tmp_path / "link.kept").symlink_to(tmp_path / "a.other")
    make_room(tmp_path, ".kept", 0)
    assert sorted(os.listdir(tmp_path)) == [".fedpareto-b.kept", "a.other", "folder.kept", "link.kept"]


def test_no_more_than_half_of_what_the_disk_would_have_free_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(200))
    (tmp_path / "a.kept").write_bytes(b"x" * 100)
    make_room(tmp_path, ".kept", 50)
    assert os.listdir(tmp_path) == ["a.kept"]
    half = r"^151 B are needed and 150 B may be kept \(half of what the disk has free\)$"
    with pytest.raises(NoRoomError, match=half):
        make_room(tmp_path, ".kept", 151)
    assert os.listdir(tmp_path) == ["a.kept"]
    make_room(tmp_path, ".kept", 51)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_the_one_around_it(tmp_path: Path) -> None:
    make_room(tmp_path / "not" / "yet", ".kept", 1000)
    assert os.listdir(tmp_path) == []


def test_what_is_used_is_no_longer_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("a.kept", "b.kept")):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (number, number))
    mark_used(tmp_path / "a.kept")
    mark_used(tmp_path / "gone.kept")
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "10")
    make_room(tmp_path, ".kept", 0)
    assert os.listdir(tmp_path) == ["a.kept"]
