"""Kept images that are damaged, places where nothing can be kept, and how much is: never in the way."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from helpers.images.kept_pictures import check_kept, decoded_alone, names_in, read_kept
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage import files
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files


def _flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_damaged_is_taken_for_pixels(folder: Path, pictures: Files, data: st.DataObject) -> None:
    check_kept(pictures)
    (name,) = names_in(folder)
    content = (folder / name).read_bytes()
    at = data.draw(st.one_of(st.integers(0, 600), st.integers(4000, len(content) - 1)))
    how = data.draw(st.sampled_from(["flip", "cut", "more", "empty", "text"]))
    spoilt = {
        "flip": _flip(content, at),
        "cut": content[:at],
        "more": content + b"\0",
        "empty": b"",
        "text": b"[" * 5000 + b"\n",
    }[how]
    (folder / name).write_bytes(spoilt)
    remarks = check_kept(pictures)
    # Spaces after the header may hold anything that is no text of it.
    assert remarks == [] or remarks[0].endswith("; the images are decoded again")
    assert remarks or content[:4096].rstrip() == spoilt[:4096].rstrip()
    assert (folder / name).read_bytes() == content or not remarks


def test_a_file_under_the_name_of_another_is_not_taken_for_it(folder: Path, pictures: Files) -> None:
    read_kept(Files(pictures.paths[::-1]))
    (other,) = names_in(folder)
    read_kept(pictures)
    (name,) = {*names_in(folder)} - {other}
    (folder / name).write_bytes((folder / other).read_bytes())
    (remark,) = check_kept(pictures)
    assert remark == f"{folder / name} is damaged (it was written under another name); the images are decoded again"


def test_a_folder_in_place_of_the_file_is_no_obstacle(folder: Path, pictures: Files) -> None:
    read_kept(pictures)
    (name,) = names_in(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    cannot_read, cannot_write = check_kept(pictures)
    assert cannot_read == f"cannot read {folder / name}: Is a directory; the images are decoded again"
    assert cannot_write.startswith(f"cannot write {folder / name}: ")
    assert names_in(folder) == [name]


def test_where_nothing_can_be_written_the_run_goes_on_with_a_remark(
    tmp_path: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where the folder would be: that refuses the superuser, too.
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "blocked"))
    remarks = check_kept(pictures)
    assert remarks[-1].startswith(f"cannot write {tmp_path / 'blocked' / 'pixels'}")
    assert remarks[-1].endswith("; the decoded images are not kept (choose a folder with FEDPARETO_CACHE_DIR)")


def test_a_full_disk_leaves_no_part_of_a_file(folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    (remark,) = check_kept(pictures)
    assert remark.startswith("cannot write ")
    assert "No space left on device; the decoded images are not kept" in remark
    assert names_in(folder) == []


def test_what_is_kept_is_read_from_a_folder_that_may_not_be_written(
    folder: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_kept(pictures)
    decoded.clear()

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert check_kept(pictures) == []
    assert decoded == []
    (remark,) = check_kept(pictures, Preparation(6))
    assert "Read-only file system; the decoded images are not kept" in remark
    assert len(names_in(folder)) == 1


def test_a_user_without_a_home_decodes_at_every_start_and_is_told(
    tmp_path: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDPARETO_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for _ in range(2):
        (remark,) = check_kept(pictures)
        assert remark.endswith("name a folder with FEDPARETO_CACHE_DIR; the decoded images are not kept")
    assert len(decoded) == 12
    assert not (tmp_path / "~").exists()


# How much is kept.


@pytest.mark.parametrize("size", ["lots", "5 parsecs", "-1", "1e999", "nan"])
def test_a_size_that_is_none_is_an_error_of_one_line_before_anything_is_decoded(
    pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", size)
    with pytest.raises(UserError, match=r"^FEDPARETO_CACHE_SIZE is wrong: .*, or 0 to keep nothing$") as caught:
        read_kept(pictures)
    assert size in str(caught.value)
    assert decoded == []


def test_a_size_of_0_keeps_nothing_and_removes_what_was_kept(
    folder: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_kept(pictures)
    (folder / "mine.txt").write_text("not an entry")
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "0 GB")
    for _ in range(2):
        assert check_kept(pictures) == []
    assert len(decoded) == 18
    assert names_in(folder) == ["mine.txt"]


def test_what_is_unused_for_longest_makes_way_and_stays_right_for_whoever_has_it_mapped(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: dict[int, Tensor] = {}
    for side in (8, 9, 10):
        preparation = Preparation(side)
        read_kept(pictures, preparation)
        mapped[side] = read_kept(pictures, preparation)[0]
        for number, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (number, number))
    # The first is used again, so that the second is the oldest.
    read_kept(pictures, Preparation(8))
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", str(2000 + sum(path.stat().st_size for path in folder.iterdir())))
    assert check_kept(pictures, Preparation(11)) == []
    assert [name.split("-of-")[1].split("x")[0] for name in names_in(folder)] == ["10", "11", "8"]
    for side, pixels in mapped.items():
        assert torch.equal(pixels, decoded_alone(pictures, Preparation(side)))


def test_what_is_larger_than_all_that_may_be_kept_removes_nothing(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_kept(pictures)
    before = names_in(folder)
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "10kB")
    (remark,) = check_kept(pictures, Preparation(64))
    assert remark.startswith("77.8 kB are needed and 10 kB may be kept (FEDPARETO_CACHE_SIZE); the decoded images are")
    assert names_in(folder) == before
