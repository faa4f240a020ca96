import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import (
    DIGESTS,
    FORMAT,
    DamagedError,
    check_file,
    check_folder,
    digest_of,
    read_digests,
)
from fedpareto.supernet.common.storage.files import read_bytes, read_text, record, replacing, write_recorded, write_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with digests, and of one without."""
    (tmp_path / "one").write_text("1\n")
    (tmp_path / "two").write_bytes(bytes(range(256)))
    record(tmp_path)
    (tmp_path / "three").write_text("3\n")
    return tmp_path


def test_what_was_not_changed_is_read(folder: Path) -> None:
    assert read_text(folder / "one") == "1\n"
    assert read_bytes(folder / "two") == bytes(range(256))
    check_folder(folder, complete=True)
    assert read_digests(folder).keys() == {"one", "two"}


def test_every_flipped_bit_is_found(folder: Path) -> None:
    content = bytearray((folder / "two").read_bytes())
    for place in range(0, 256, 5):
        content[place] ^= 1 << place % 8
        (folder / "two").write_bytes(content)
        for check in (read_bytes, read_text, check_file, lambda path: check_folder(path.parent, complete=True)):
            with pytest.raises(DamagedError, match=r"two is damaged \(its digest does not fit\); restore it"):
                check(folder / "two")
        content[place] ^= 1 << place % 8
    (folder / "two").write_bytes(content)
    check_file(folder / "two")


def test_other_files_are_nobodys_business(folder: Path) -> None:
    (folder / "three").write_text("4\n")
    assert read_text(folder / "three") == "4\n"
    check_file(folder / "three")


def test_a_file_that_is_gone_is_missed_only_where_all_must_be_there(folder: Path) -> None:
    (folder / "one").unlink()
    check_folder(folder, complete=False)
    with pytest.raises(DamagedError, match=r"one is damaged \(No such file or directory\)"):
        check_folder(folder, complete=True)


_OURS = '{"format": "fedpareto-digests"'


@pytest.mark.parametrize(
    "text", ["", "{", _OURS + "}", _OURS + ', "version": 1}', _OURS + ', "version": 1, "files": 1}', "[" * 9999, "NaN"]
)
def test_damaged_digests_are_an_error_of_one_line_that_names_them(folder: Path, text: str) -> None:
    (folder / DIGESTS).write_text(text)
    with pytest.raises(DamagedError, match=rf"{folder / DIGESTS} is damaged") as caught:
        read_text(folder / "one")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", [{"one": 3}, {"one": "abc"}, {"one": [3]}, {"one": [None]}, 3, None])
def test_digests_of_another_kind_are_an_error(folder: Path, files: object) -> None:
    (folder / DIGESTS).write_text(json.dumps({"format": FORMAT, "version": 1, "files": files}))
    with pytest.raises(DamagedError, match="is damaged"):
        read_text(folder / "one")


@pytest.mark.parametrize("version", [0, 2, 10**9])
def test_digests_of_another_version_are_refused(folder: Path, version: int) -> None:
    (folder / DIGESTS).write_text(json.dumps({"format": FORMAT, "version": version, "files": {}}))
    with pytest.raises(UserError, match=f"has version {version}; this program reads 1"):
        read_text(folder / "one")


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"files": {"one": "sha256:00"}}', '{"format": "other", "files": 3}']
)
def test_somebody_elses_file_of_that_name_is_none_of_ours(folder: Path, text: str) -> None:
    (folder / DIGESTS).write_text(text)
    assert read_digests(folder) == {}
    assert read_text(folder / "one") == "1\n"
    write_text(folder / "one", "2\n")
    assert (folder / DIGESTS).read_text() == text


def test_names_that_are_no_names_harm_nothing(folder: Path) -> None:
    for name in ("", ".", "..", "a" * 400, "\0", "a/b", "../one"):
        (folder / DIGESTS).write_text(json.dumps({"format": FORMAT, "version": 1, "files": {name: ["00"]}}))
        assert read_text(folder / "one") == "1\n"
        with pytest.raises(DamagedError):
            check_folder(folder, complete=True)


def test_a_file_that_is_written_again_keeps_its_digest_up_to_date(folder: Path) -> None:
    for text in ("2\n", "3\n", "2\n", "2\n", ""):
        write_text(folder / "one", text)
        assert read_text(folder / "one") == text
        check_folder(folder, complete=True)
    with replacing(folder / "two") as temporary:
        temporary.write_bytes(b"other")
    assert read_bytes(folder / "two") == b"other"
    (folder / "two").write_bytes(b"neither")
    with pytest.raises(DamagedError):
        check_file(folder / "two")


def test_a_file_is_recorded_from_its_first_writing_on(tmp_path: Path) -> None:
    for text in ("1", "2", "3"):
        write_recorded(tmp_path / "new", text)
        assert read_text(tmp_path / "new") == text
        assert digest_of(tmp_path / "new") in read_digests(tmp_path)["new"]
    (tmp_path / "new").write_text("4")
    with pytest.raises(DamagedError):
        read_text(tmp_path / "new")


_WRITE_FOREVER = """
import sys
from pathlib import Path
from fedpareto.supernet.common.storage.files import write_text

number = 0
while True:
    number += 1
    write_text(Path(sys.argv[1]) / "one", f"{number}\\n" * 1000)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_a_process_that_is_killed_while_it_writes_leaves_a_folder_that_fits(folder: Path, after: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _WRITE_FOREVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.kill()
    check_folder(folder, complete=True)
    assert len(set(read_text(folder / "one").splitlines())) == 1
