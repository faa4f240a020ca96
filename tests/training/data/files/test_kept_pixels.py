"""Decoded images that are kept: always the pixels of the files as they are, decoded once, and never in the way."""

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images.pictures import noise, write_pictures
from helpers.runs.federation import micro_config, micro_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage import files
from fedpareto.supernet.common.storage.cache_folder import kept_folder
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import ClientConfig
from fedpareto.training.data.files import kept_pixels, reading, stamps
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.preparation import Preparation, read_picture
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.images import DataError
from fedpareto.training.data.run_images import used_images
from fedpareto.training.engines.simulation.federation import StoredFederation, new_simulation

_EIGHT = Preparation(8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that images are kept in, also those that were written a moment ago."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(stamps, "_STEP_NS", -(10**15))
    return kept_folder("pixels")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are decoded from here on."""
    names: list[str] = []
    really = reading.decoded_files

    def note(paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> Decoded:
        names.extend(path.name for path in paths)
        return really(paths, preparation, listener)

    monkeypatch.setattr(reading, "decoded_files", note)
    return names


@pytest.fixture
def pictures(tmp_path: Path) -> Files:
    """Six pictures."""
    write_pictures(tmp_path, {"data": {"a": 6}}, size=(8, 11))
    return Files(tuple(sorted((tmp_path / "data").rglob("*.png"))))


def _read(pictures: Files, preparation: Preparation = _EIGHT, *, keep: bool = True) -> tuple[Tensor, list[str]]:
    remarks: list[str] = []
    return pictures.read(preparation, ProgressListener(remark=remarks.append), keep=keep), remarks


def _expected(pictures: Files, preparation: Preparation = _EIGHT) -> Tensor:
    """What each file holds, decoded by itself."""
    pixels = np.stack([read_picture(path, preparation) for path in pictures.paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _check(pictures: Files, preparation: Preparation = _EIGHT) -> list[str]:
    pixels, remarks = _read(pictures, preparation)
    assert torch.equal(pixels, _expected(pictures, preparation))
    return [remark for remark in remarks if not remark.startswith("not square")]


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


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
        expected = _expected(pictures, preparation)
    first, second = (_read(pictures, preparation) for _ in range(2))
    assert len(decoded) == 3
    assert torch.equal(first[0], expected)
    assert torch.equal(second[0], expected)
    assert first[1] == second[1]
    assert len(first[1]) == (1 if channels == 5 else 2)
    assert len(_names(folder)) == 1


def test_whoever_writes_into_the_pixels_changes_no_other_reader(pictures: Files) -> None:
    _read(pictures)
    mine, others = _read(pictures)[0], _read(pictures)[0]
    mine += 1
    assert torch.equal(others, _expected(pictures))
    assert _check(pictures) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=1, unique=True).map(sorted), st.data())
def test_any_choice_is_taken_out_of_the_whole(
    pictures: Files, decoded: list[str], positions: list[int], data: st.DataObject
) -> None:
    _read(pictures)
    decoded.clear()
    part = pictures.subset(torch.tensor(positions))
    _check(part)
    some = data.draw(st.lists(st.integers(0, len(positions) - 1), min_size=1, unique=True).map(sorted))
    _check(part.subset(torch.tensor(some)))
    assert decoded == []


def test_a_small_part_of_what_is_kept_is_kept_by_itself(folder: Path, pictures: Files, decoded: list[str]) -> None:
    _read(pictures)
    (whole,) = _names(folder)
    part = pictures.subset(torch.tensor([1, 4]))
    _check(part)
    _check(pictures.subset(torch.tensor([0, 1, 2, 3, 4])))
    assert len(_names(folder)) == 2
    (folder / whole).unlink()
    decoded.clear()
    assert _check(part) == []
    assert decoded == []


def test_a_choice_whose_whole_is_not_kept_decodes_its_own_pictures_only(pictures: Files, decoded: list[str]) -> None:
    for path in pictures.paths[2:]:
        path.write_bytes(b"would not decode")
    part = pictures.subset(torch.tensor([0, 1]))
    _check(part)
    _check(part)
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
    before = _read(pictures)[0].clone()
    decoded.clear()
    change(pictures.paths[0])
    _check(pictures)
    assert len(decoded) == 6
    assert not torch.equal(_read(pictures)[0], before)
    assert len(_names(folder)) == 2


@pytest.mark.parametrize("preparation", [Preparation(7), Preparation(8, 1), Preparation(8, 3, "pad")])
def test_another_preparation_is_another_entry(folder: Path, pictures: Files, preparation: Preparation) -> None:
    _read(pictures)
    _check(pictures, preparation)
    assert len(_names(folder)) == 2


def test_another_decoder_or_order_is_another_entry(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check(pictures)
    _check(Files(pictures.paths[::-1]))
    monkeypatch.setattr(kept_pixels, "_program", lambda: ("another",))
    _check(pictures)
    assert len(_names(folder)) == 3


@pytest.mark.parametrize("field", ["st_size", "st_ino", "st_mtime_ns", "st_ctime_ns"])
def test_whatever_the_file_system_says_of_a_file_tells_its_states_apart(
    pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    really, names = os.stat, ("st_size", "st_ino", "st_mtime_ns", "st_ctime_ns")

    def changed(path: Any) -> Any:
        found = really(path)
        return SimpleNamespace(**{name: getattr(found, name) + (name == field) for name in names})

    _read(pictures)
    decoded.clear()
    monkeypatch.setattr(stamps, "os", SimpleNamespace(stat=changed))
    _read(pictures)
    assert len(decoded) == 6


def test_what_was_written_a_moment_ago_is_not_kept_yet(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It may be written again without getting another time.
    monkeypatch.setattr(stamps, "_STEP_NS", 2 * 10**9)
    assert _check(pictures) == []
    assert _names(folder) == []


def test_nothing_is_kept_for_who_keeps_it_elsewhere(folder: Path, pictures: Files, decoded: list[str]) -> None:
    _read(pictures, keep=False)
    assert _names(folder) == []
    _read(pictures)
    decoded.clear()
    _read(pictures, keep=False)
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
    assert _check(pictures) == []
    assert len(_names(folder)) == 1
    assert _check(pictures) == []
    assert len(_names(folder)) == 1


def test_what_changes_all_the_time_is_an_error_of_one_line(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = iter(range(99))
    _changing(monkeypatch, lambda: Image.new("L", (8, 8), next(colours)).save(pictures.paths[2]), 99)
    with pytest.raises(DataError, match=r"002\.png changes while it is read; start again when nothing writes"):
        _read(pictures)
    assert _names(folder) == []


def test_what_goes_while_it_is_decoded_is_an_error_that_names_it(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    _changing(monkeypatch, pictures.paths[3].unlink, 1)
    with pytest.raises(DataError, match=r"cannot decode .*003\.png: .*No such file"):
        _read(pictures)
    assert _names(folder) == []


def test_what_comes_while_others_are_decoded_is_not_among_them(
    pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = pictures.paths[0].with_name("006.png")
    _changing(monkeypatch, lambda: Image.new("L", (8, 8)).save(new), 1)
    assert len(_read(pictures)[0]) == 6
    decoded.clear()
    assert len(_read(pictures)[0]) == 6
    assert decoded == []
    _check(Files((*pictures.paths, new)))
    assert len(decoded) == 7


# Files that are damaged, and places where nothing can be kept.


def _flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_damaged_is_taken_for_pixels(folder: Path, pictures: Files, data: st.DataObject) -> None:
    _check(pictures)
    (name,) = _names(folder)
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
    remarks = _check(pictures)
    # Spaces after the header may hold anything that is no text of it.
    assert remarks == [] or remarks[0].endswith("; the images are decoded again")
    assert remarks or content[:4096].rstrip() == spoilt[:4096].rstrip()
    assert (folder / name).read_bytes() == content or not remarks


def test_a_file_under_the_name_of_another_is_not_taken_for_it(folder: Path, pictures: Files) -> None:
    _read(Files(pictures.paths[::-1]))
    (other,) = _names(folder)
    _read(pictures)
    (name,) = {*_names(folder)} - {other}
    (folder / name).write_bytes((folder / other).read_bytes())
    (remark,) = _check(pictures)
    assert remark == f"{folder / name} is damaged (it was written under another name); the images are decoded again"


def test_a_folder_in_place_of_the_file_is_no_obstacle(folder: Path, pictures: Files) -> None:
    _read(pictures)
    (name,) = _names(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    cannot_read, cannot_write = _check(pictures)
    assert cannot_read == f"cannot read {folder / name}: Is a directory; the images are decoded again"
    assert cannot_write.startswith(f"cannot write {folder / name}: ")
    assert _names(folder) == [name]


def test_where_nothing_can_be_written_the_run_goes_on_with_a_remark(
    tmp_path: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where the folder would be: that refuses the superuser, too.
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "blocked"))
    remarks = _check(pictures)
    assert remarks[-1].startswith(f"cannot write {tmp_path / 'blocked' / 'pixels'}")
    assert remarks[-1].endswith("; the decoded images are not kept (choose a folder with FEDPARETO_CACHE_DIR)")


def test_a_full_disk_leaves_no_part_of_a_file(folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    (remark,) = _check(pictures)
    assert remark.startswith("cannot write ")
    assert "No space left on device; the decoded images are not kept" in remark
    assert _names(folder) == []


def test_what_is_kept_is_read_from_a_folder_that_may_not_be_written(
    folder: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _read(pictures)
    decoded.clear()

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert _check(pictures) == []
    assert decoded == []
    (remark,) = _check(pictures, Preparation(6))
    assert "Read-only file system; the decoded images are not kept" in remark
    assert len(_names(folder)) == 1


def test_a_user_without_a_home_decodes_at_every_start_and_is_told(
    tmp_path: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDPARETO_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for _ in range(2):
        (remark,) = _check(pictures)
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
        _read(pictures)
    assert size in str(caught.value)
    assert decoded == []


def test_a_size_of_0_keeps_nothing_and_removes_what_was_kept(
    folder: Path, pictures: Files, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _read(pictures)
    (folder / "mine.txt").write_text("not an entry")
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "0 GB")
    for _ in range(2):
        assert _check(pictures) == []
    assert len(decoded) == 18
    assert _names(folder) == ["mine.txt"]


def test_what_is_unused_for_longest_makes_way_and_stays_right_for_whoever_has_it_mapped(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: dict[int, Tensor] = {}
    for side in (8, 9, 10):
        preparation = Preparation(side)
        _read(pictures, preparation)
        mapped[side] = _read(pictures, preparation)[0]
        for number, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (number, number))
    # The first is used again, so that the second is the oldest.
    _read(pictures, Preparation(8))
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", str(2000 + sum(path.stat().st_size for path in folder.iterdir())))
    assert _check(pictures, Preparation(11)) == []
    assert [name.split("-of-")[1].split("x")[0] for name in _names(folder)] == ["10", "11", "8"]
    for side, pixels in mapped.items():
        assert torch.equal(pixels, _expected(pictures, Preparation(side)))


def test_what_is_larger_than_all_that_may_be_kept_removes_nothing(
    folder: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    _read(pictures)
    before = _names(folder)
    monkeypatch.setenv("FEDPARETO_CACHE_SIZE", "10kB")
    (remark,) = _check(pictures, Preparation(64))
    assert remark.startswith("77.8 kB are needed and 10 kB may be kept (FEDPARETO_CACHE_SIZE); the decoded images are")
    assert _names(folder) == before


# Processes and commands.


def _in_process(pictures: Files, barrier: Any, queue: Any) -> None:
    really = reading.decoded_files

    def decode(paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> Decoded:
        # Both have found nothing, and both decode.
        barrier.wait(60)
        return really(paths, preparation, listener)

    reading.decoded_files = decode
    try:
        pixels, remarks = _read(pictures)
        queue.put((pixels.numpy().tobytes(), remarks))
    except BaseException as error:
        queue.put((repr(error), []))


def test_processes_that_decode_the_same_at_once_are_both_right_and_leave_one_file(
    folder: Path, pictures: Files, decoded: list[str]
) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_in_process, args=(pictures, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    expected = _expected(pictures).contiguous().numpy().tobytes()
    assert [pixels for pixels, _ in outcomes] == [expected] * 2
    assert len(_names(folder)) == 1
    assert _check(pictures) == []
    assert decoded == []


@pytest.mark.parametrize("images", [None, 24])
def test_a_run_that_is_searched_decodes_none_of_what_it_was_trained_with(
    tmp_path: Path, decoded: list[str], images: int | None
) -> None:
    root = write_pictures(tmp_path / "data", {"train": {"a": 30, "b": 24}})
    data = DataConfig("imagefolder", str(root), crop=1, flip=False, cutout=0, validation=0.2, images=images)
    config = micro_config(
        tmp_path,
        data=data,
        partition=PartitionConfig("iid"),
        clients=ClientsConfig(count=2, per_round=1),
        client=ClientConfig(batch_size=4),
    )
    space = micro_space(classes=2)
    first = new_simulation(config, space)
    assert len(decoded) == (images or 54)
    decoded.clear()
    again = new_simulation(config, space)
    assert again.split == first.split
    assert again.data.digest() == first.data.digest()
    stored = StoredFederation(tmp_path, config, space, first.split, SILENT).evaluator(config, space)
    assert torch.equal(stored.held_out.images, first.evaluator(config, space).held_out.images)
    assert used_images(config).read(Preparation(8)).digest() == first.data.digest()
    assert decoded == []
