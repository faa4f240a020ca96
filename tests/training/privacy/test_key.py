"""The key of a private run: its file, which is refused in every other form, and what is derived from it."""

import os
from pathlib import Path

import pytest
from helpers.networks.strategies import runs
from hypothesis import assume, given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.privacy.key import derive, encoded, read_key, write_key


def _written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_comes_back_from_its_file_which_is_nobody_elses(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_key(tmp_path / "noise.key")
        write_key(tmp_path / "another.key")
    finally:
        os.umask(before)
    key = read_key(tmp_path / "noise.key")
    assert len(key) == 32
    assert key != read_key(tmp_path / "another.key")
    assert (tmp_path / "noise.key").read_bytes() == key.hex().encode() + b"\n"
    assert (tmp_path / "noise.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "noise.key")


_HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n", "1\n", "-5\n", " 7\n", "0x1\n", "not a key\n"),
        *(f"{_HEX}", f"{_HEX}\n\n", f"{_HEX}\r\n", f" {_HEX}\n", f"{_HEX} \n"),
        *(f"{_HEX[1:]}\n", f"{_HEX}0\n", f"{_HEX.upper()}\n", f"-{_HEX[1:]}\n", f"{_HEX[:-1]}g\n", f"{_HEX[:-2]}_0\n"),
        *(f"{_HEX}\n{_HEX}\n", f"\ufeff{_HEX}\n", f"{_HEX[:-1]}٣\n", f"{_HEX[:31]}\n", f"{_HEX[:33]}\n"),
    ],
)
def test_a_key_of_another_form_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = _written(tmp_path / "noise.key", content.encode())
    with pytest.raises(UserError, match=r"noise\.key is damaged; it must be 64 hex digits") as caught:
        read_key(path)
    assert "\n" not in str(caught.value)
    assert content.strip() not in str(caught.value) or len(content.strip()) < 3


@runs(300)
@given(content=st.binary(max_size=80) | st.text("0123456789abcdefABCDEF \n", min_size=63, max_size=67).map(str.encode))
def test_nothing_but_the_form_is_a_key(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    good = len(content) == 65 and content.endswith(b"\n") and set(content[:-1]) <= set(b"0123456789abcdef")
    assume(not good)
    path = _written(tmp_path_factory.mktemp("key") / "noise.key", content)
    with pytest.raises(UserError):
        read_key(path)


def test_a_key_of_32_digits_is_of_an_earlier_version_and_its_run_is_not_private(tmp_path: Path) -> None:
    path = _written(tmp_path / "noise.key", f"{_HEX[:32]}\n".encode())
    with pytest.raises(UserError, match=r"32 bits of secret.*start a new run with another --output and --init") as told:
        read_key(path)
    assert _HEX[:32] not in str(told.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o602, 0o777])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = _written(tmp_path / "noise.key", f"{_HEX}\n".encode(), mode)
    with pytest.raises(UserError, match=rf"may be read or written by others.*chmod 600 {path}"):
        read_key(path)


def test_a_link_a_folder_a_pipe_and_nothing_are_no_keys(tmp_path: Path) -> None:
    real = _written(tmp_path / "real.key", f"{_HEX}\n".encode())
    (tmp_path / "linked").symlink_to(real)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, words in (
        ("linked", "is a link"),
        ("folder", "is no ordinary file"),
        ("pipe", "is no ordinary file"),
        ("absent", "is missing"),
    ):
        with pytest.raises(UserError, match=words):
            read_key(tmp_path / name)


def test_somebody_elses_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path / "noise.key", f"{_HEX}\n".encode())
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(UserError, match="belongs to another user"):
        read_key(path)


@runs(300)
@given(parts=st.lists(st.binary(max_size=4), max_size=4), others=st.lists(st.binary(max_size=4), max_size=4))
def test_no_two_lists_of_parts_are_encoded_alike(parts: list[bytes], others: list[bytes]) -> None:
    assert (encoded(*parts) == encoded(*others)) == (parts == others)


def test_derivations_for_other_purposes_and_with_other_parts_are_others() -> None:
    key = bytes(range(32))
    found = [
        derive(key, "noise", "a", "b"),
        derive(key, "noise", "ab", ""),
        derive(key, "noise", "", "ab"),
        derive(key, "noisea", "b"),
        derive(key, "digest", "a", "b"),
        derive(bytes(32), "noise", "a", "b"),
    ]
    assert len(set(found)) == len(found)
    assert {len(each) for each in found} == {32}
    # As they have always been: another program's runs go on with these.
    assert found[0].hex() == "c58968a08a257e88cde6a2b10fde86efbfe4dc4e3d0d95c94288c07e2ce5adad"
