import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import (
    check_length,
    check_readable,
    children,
    exists,
    is_file,
    is_folder,
    reaching,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("text")
    (tmp_path / "inner").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("file")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("file", (True, True, False)),
        ("link", (True, True, False)),
        ("inner", (True, False, True)),
        ("nowhere", (False, False, False)),
        ("nowhere/deeper", (False, False, False)),
        ("file/deeper", (False, False, False)),
        ("dangling", (False, False, False)),
    ],
)
def test_what_is_there_is_told(folder: Path, name: str, found: tuple[bool, bool, bool]) -> None:
    path = folder / name
    assert (exists(path), is_file(path), is_folder(path)) == found


@pytest.mark.parametrize("probe", [exists, is_file, is_folder, children, check_readable])
@pytest.mark.parametrize("name", ["loop", "loop/deeper", "n" * 256, "n/" * 2048, "a\0b", "\ud800"])
def test_what_cannot_be_found_out_is_one_line_that_names_the_path(
    folder: Path, probe: Callable[[Path], object], name: str
) -> None:
    with pytest.raises(UserError, match=r"^cannot read ") as caught:
        probe(folder / name)
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode()


@pytest.mark.parametrize("probe", [exists, is_file, is_folder, children])
def test_a_folder_that_may_not_be_searched_is_named(
    folder: Path, probe: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"^cannot read .*/inner: Permission denied$"):
        probe(folder / "inner")


def test_children_are_sorted_and_none_where_there_is_no_folder(folder: Path) -> None:
    assert [path.name for path in children(folder)] == sorted(os.listdir(folder))
    assert children(folder / "nowhere") == []


@pytest.mark.parametrize(
    ("path", "said"),
    [("/dev/zero", "it is a device, not a file"), ("/dev/null", "it is a device"), ("/", "it is a folder, not a file")],
)
def test_what_has_no_end_is_not_read(path: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^cannot read {path}: {said}"):
        check_readable(Path(path))


def test_a_file_may_have_a_size_that_it_must_not_exceed(folder: Path) -> None:
    check_readable(folder / "file", most=4)
    check_readable(folder / "nowhere", most=4)
    with pytest.raises(UserError, match="it has 4 bytes; such a file has at most 3"):
        check_readable(folder / "file", most=3)


def test_the_length_of_a_path_leaves_room_for_names_of_ours(folder: Path) -> None:
    check_length(folder / ("n" * 200), folder)
    with pytest.raises(UserError, match="a name in it has more than 215 bytes; choose a shorter one"):
        check_length(folder / ("é" * 110), folder)
    with pytest.raises(UserError, match=r"it has more than \d+ bytes; choose a shorter path"):
        check_length(folder / ("n/" * 2000), folder)


def test_what_else_the_system_refuses_names_the_path() -> None:
    with pytest.raises(UserError, match="cannot write a: No space left"), reaching(Path("a"), "write"):
        raise OSError(28, "No space left on device")
