import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import PATIENCE

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage import files
from fedpareto.supernet.common.storage.files import (
    check_output,
    check_output_folder,
    check_writable,
    read_text,
    remove_if_dead,
    replacing,
    replacing_folder,
    restore_folder,
    sweep,
    write_text,
)


def _write_half(path: Path, error: BaseException) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_text_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "text.txt"
    write_text(path, "ρ ≤ 1\n")
    assert read_text(path) == "ρ ≤ 1\n"
    assert path.read_bytes() == "ρ ≤ 1\n".encode()


def test_a_file_is_replaced_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["cache.jsonl"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        _write_half(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["cache.jsonl"]


def test_a_failed_write_of_a_new_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write_half(tmp_path / "new.txt", KeyboardInterrupt())
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_a_one_line_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    with pytest.raises(UserError, match=r"cannot write .*new\.txt: No space left"), replacing(path):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    ordinary, written = tmp_path / "ordinary", tmp_path / "written"
    ordinary.write_text("")
    write_text(written, "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_every_folder_that_gets_a_new_name_is_synced_after_the_name_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[str]]] = []

    def sync(path: Path) -> None:
        if path.is_dir():
            synced.append((str(path.relative_to(tmp_path)), sorted(os.listdir(path))))

    monkeypatch.setattr(files, "sync", sync)
    write_text(tmp_path / "new" / "er" / "text", "")
    assert synced == [(".", ["new"]), ("new", ["er"]), ("new/er", ["text"])]
    synced.clear()
    with replacing_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "c").write_text("")
    assert synced == [(".", ["a", "new"]), ("a/.b.tmp", ["c"]), ("a", ["b"])]
    synced.clear()
    with replacing_folder(tmp_path / "a" / "b", replace=True) as temporary:
        (temporary / "d").write_text("")
    assert synced == [("a/.b.tmp", ["d"]), ("a", [".b.old", ".b.tmp"]), ("a", [".b.old", "b"])]


def test_writing_below_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "text.txt", "x")


def test_reading_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere: No such file"):
        read_text(tmp_path / "nowhere")


def test_reading_bytes_that_are_no_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_text(tmp_path / "binary")


def test_an_existing_output_is_refused_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text("old")
    with pytest.raises(UserError, match="exists; pass --overwrite"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder you may write to"):
        check_output(tmp_path / "file" / "deep" / "cache.jsonl", overwrite=False)


def test_a_folder_is_refused_as_an_output_file(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        check_output(tmp_path, overwrite=True)


def test_a_new_output_in_a_new_folder_is_allowed_and_not_made(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "cache.jsonl", overwrite=False)
    assert os.listdir(tmp_path) == []


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffβ".encode())
    assert read_text(tmp_path / "a") == "β"


@pytest.mark.parametrize("overwrite", [True, None])
def test_a_device_is_never_replaced(tmp_path: Path, overwrite: bool | None) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        with pytest.raises(UserError, match=f"^{path} "):
            check_output(path, overwrite=overwrite)


def test_the_working_folder_is_no_output_even_if_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("."), tmp_path, Path("a/..")):
        with pytest.raises(UserError, match="is the folder you are in"):
            check_output_folder(path)
    (tmp_path / "a").mkdir()
    check_output_folder(Path("a"))


@pytest.mark.parametrize("name", ["n" * 216, "é" * 120, "a/" + "n" * 300, "n/" * 2000])
def test_a_path_that_is_too_long_to_write_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    for check in (check_output_folder, lambda path: check_output(path, overwrite=True), check_writable):
        with pytest.raises(UserError, match=r"cannot (read|write) "):
            check(tmp_path / name)
    assert os.listdir(tmp_path) == []


#: Begins to write what its arguments name, and waits to be killed.
_WRITE = """
import sys
from pathlib import Path
from fedpareto.supernet.common.storage import files

with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def _writing(what: str, path: Path) -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE, what, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.readline().strip()
    # An empty line would name the working folder, which is then cleared away.
    assert told
    return process, Path(told)


def _killed(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("name", ["notes.json", "x" * 250, ".hidden", "a.tar.gz"])
def test_what_a_killed_process_was_writing_is_swept_by_the_next_to_write_there(tmp_path: Path, name: str) -> None:
    process, temporary = _writing("replacing", tmp_path / name)
    assert temporary.exists()
    # While its process lives, it stays.
    write_text(tmp_path / "other", "whole")
    sweep(tmp_path)
    assert not remove_if_dead(temporary)
    assert temporary.read_text() == "half"
    _killed(process)
    write_text(tmp_path / name, "whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["other", name])


def test_a_folder_that_a_killed_process_was_writing_is_cleared_away_and_that_of_a_living_one_respected(
    tmp_path: Path,
) -> None:
    process, temporary = _writing("replacing_folder", tmp_path / "run")
    with pytest.raises(OSError, match="another process is writing it"), replacing_folder(tmp_path / "run"):
        pass
    assert (temporary / "half").exists()
    _killed(process)
    with replacing_folder(tmp_path / "run") as own:
        (own / "whole").write_text("")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["run", "run/whole"]


@pytest.mark.parametrize("name", ["", ".", "notes.json", "runs/mine"])
def test_what_is_not_temporary_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "notes.json").write_text("kept")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no temporary"):
        remove_if_dead(Path(name))
    assert sorted(os.listdir()) == ["notes.json", "runs"]


def test_only_our_own_files_are_swept(tmp_path: Path) -> None:
    kept = [".notes.swp", ".config.yaml.tmp", "fedpareto-1", ".lock", ".fedpareto"]
    for name in kept:
        (tmp_path / name).write_text("somebody's own")
    (tmp_path / ".fedpareto-link").symlink_to(tmp_path / ".notes.swp")
    (tmp_path / ".fedpareto-abc.json").write_text("half")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".fedpareto-link"])
    sweep(tmp_path / "gone")


@pytest.mark.parametrize("killed", ["between the renames", "after them", "before them"])
def test_a_folder_that_is_replaced_is_always_there_as_it_was_or_as_it_will_be(tmp_path: Path, killed: str) -> None:
    path, old = tmp_path / "x", tmp_path / ".x.old"
    path.mkdir()
    (path / "first").write_text("")
    with replacing_folder(path, replace=True) as temporary:
        (temporary / "second").write_text("")
    assert os.listdir(path) == ["second"]
    assert os.listdir(tmp_path) == ["x"]
    if killed == "between the renames":
        path.rename(old)
    if killed == "after them":
        old.mkdir()
    restore_folder(path)
    assert os.listdir(path) == ["second"]
    assert os.listdir(tmp_path) == ["x"]


def test_a_replacement_that_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    (path / "first").write_text("")
    with pytest.raises(KeyboardInterrupt), replacing_folder(path, replace=True):
        raise KeyboardInterrupt
    assert os.listdir(path) == ["first"]
    assert os.listdir(tmp_path) == ["x"]
