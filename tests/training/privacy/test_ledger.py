"""The ledger of releases: what it counts, and what is noticed of what is done to its file."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.privacy.accountant import exposure_after
from fedpareto.training.privacy.ledger import RELEASES, Ledger, Release, new_ledger, read_ledger, release_of

_KEY, _CLIENTS = bytes(range(32)), 4


def _release(number: int, answers: str = "as ever", **weights: float) -> Release:
    planned = {int(name[1:]): weight for name, weight in weights.items()} or {0: 0.5, 2: 0.25}
    return release_of(_KEY, number, {"layer": answers.encode()}, planned)


def _kept(folder: Path, rounds: int = 3) -> Ledger:
    ledger = new_ledger(folder / RELEASES, _KEY, "a run", _CLIENTS)
    for number in range(1, rounds + 1):
        ledger.write(_release(number))
    return ledger


def test_a_ledger_comes_back_from_its_file(tmp_path: Path) -> None:
    ledger = _kept(tmp_path)
    again = read_ledger(tmp_path / RELEASES, _KEY)
    assert again.exposure == ledger.exposure == (3.0, 0.0, 0.75, 0.0)
    assert again.run == ledger.run
    assert again.knows(_release(2))
    # It goes on where the other left off.
    again.write(_release(4))
    assert read_ledger(tmp_path / RELEASES, _KEY).exposure == again.exposure
    assert (tmp_path / RELEASES).stat().st_mode & 0o077 == 0
    assert _KEY.hex() not in (tmp_path / RELEASES).read_text()


@runs(60)
@given(
    releases=st.lists(
        st.tuples(
            st.integers(1, 5),
            st.sampled_from("abc"),
            st.dictionaries(st.integers(0, _CLIENTS - 1), st.floats(0.001, 1.0), min_size=1),
        ),
        max_size=8,
    )
)
def test_the_same_release_counts_once_and_every_other_one_counts(
    tmp_path_factory: pytest.TempPathFactory, releases: list[tuple[int, str, dict[int, float]]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger, seen = new_ledger(folder / RELEASES, _KEY, "a run", _CLIENTS), list[tuple[int, str, dict[int, float]]]()
    exposure: tuple[float, ...] = ()
    for number, answers, weights in releases:
        release = release_of(_KEY, number, {"layer": answers.encode()}, weights)
        assert ledger.knows(release) == ((number, answers, weights) in seen)
        if (number, answers, weights) not in seen:
            exposure = exposure_after(exposure, weights, _CLIENTS)
            seen.append((number, answers, weights))
        ledger.write(release)
        assert ledger.exposure == exposure
    assert read_ledger(folder / RELEASES, _KEY).exposure == exposure
    assert len((folder / RELEASES).read_text().splitlines()) == 1 + len(seen)


def test_a_release_is_told_by_its_round_every_tensor_and_its_weights() -> None:
    digests = {"a": b"1", "b": b"2"}
    release = release_of(_KEY, 1, digests, {0: 1.0})
    assert release == release_of(_KEY, 1, dict(digests), {0: 1.0})
    for other in (
        release_of(_KEY, 2, digests, {0: 1.0}),
        release_of(_KEY, 1, {"a": b"1", "b": b"3"}, {0: 1.0}),
        release_of(_KEY, 1, {"a": b"2", "b": b"1"}, {0: 1.0}),
        release_of(_KEY, 1, {"a": b"1"}, {0: 1.0}),
        release_of(_KEY, 1, digests, {0: 0.5}),
        release_of(bytes(32), 1, digests, {0: 1.0}),
    ):
        assert other != release


def test_a_line_is_on_the_disk_before_the_release_may_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, synced, fsync = _kept(tmp_path, 1), list[bytes](), os.fsync

    def watched(descriptor: int) -> None:
        synced.append((tmp_path / RELEASES).read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    ledger.write(_release(2))
    assert synced == [(tmp_path / RELEASES).read_bytes()]


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing_and_nothing_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, before, write = _kept(tmp_path, 1), (tmp_path / RELEASES).read_bytes(), os.write

    def full(descriptor: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: len(content) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left on device; a round that is not accounted"):
            ledger.write(_release(2))
    assert (tmp_path / RELEASES).read_bytes() == before
    assert not ledger.knows(_release(2))
    ledger.write(_release(2))
    assert read_ledger(tmp_path / RELEASES, _KEY).exposure == ledger.exposure


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda content: b"\n".join(change(content.split(b"\n")))


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing left": lambda content: b"",
    "cut in its last line": lambda content: content[:-9],
    "cut before its last end of line": lambda content: content[:-1],
    "a line dropped": _lines(lambda lines: [lines[0], *lines[2:]]),
    "the header dropped": _lines(lambda lines: lines[1:]),
    "lines swapped": _lines(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]),
    "a line twice": _lines(lambda lines: [*lines[:2], lines[1], *lines[2:]]),
    "a weight lowered": lambda content: content.replace(b"0.5", b"0.1", 1),
    "a round renamed": lambda content: content.replace(b'"round": 2', b'"round": 1'),
    "more clients": lambda content: content.replace(b'"clients": 4', b'"clients": 9'),
    "a line added": lambda content: content + json.dumps(_release(4).to_json()).encode() + b"\n",
    "an empty line added": lambda content: content + b"\n",
    "no text": lambda content: content + b"\xff\xfe\n",
}


@pytest.mark.parametrize("damage", _DAMAGE.values(), ids=_DAMAGE.keys())
def test_a_damaged_ledger_is_refused_in_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    _kept(tmp_path)
    path = tmp_path / RELEASES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"releases\.jsonl is damaged.*restore it from a copy, or start a new") as told:
        read_ledger(path, _KEY)
    assert "\n" not in str(told.value)


@runs(150)
@given(data=st.data())
def test_no_byte_of_a_ledger_changes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    _kept(folder, 2)
    content = (folder / RELEASES).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    (folder / RELEASES).write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
    with pytest.raises(UserError):
        read_ledger(folder / RELEASES, _KEY)


def test_another_runs_key_does_not_open_it_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    _kept(tmp_path)
    with pytest.raises(UserError, match="line 1 is not as it was written"):
        read_ledger(tmp_path / RELEASES, bytes(32))
    (tmp_path / RELEASES).unlink()
    with pytest.raises(UserError, match=r"is missing.*restore it from a copy"):
        read_ledger(tmp_path / RELEASES, _KEY)


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_ledger_with_less_than_a_checkpoint_knows_of_is_refused(tmp_path: Path, left: int) -> None:
    whole = _kept(tmp_path)
    whole.check_against(whole.exposure)
    whole.check_against((2.0, 0.0, 0.5, 0.0))
    whole.check_against(())
    path = tmp_path / RELEASES
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    with pytest.raises(UserError, match=rf"has {left - 1} releases?, fewer than the run's checkpoint knows of"):
        read_ledger(path, _KEY).check_against(whole.exposure)


def test_a_release_of_a_repeated_round_that_was_cut_off_is_missed_by_the_exposure(tmp_path: Path) -> None:
    ledger = _kept(tmp_path, 2)
    ledger.write(_release(2, "otherwise"))
    path = tmp_path / RELEASES
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="has 2 releases, fewer than"):
        read_ledger(path, _KEY).check_against(ledger.exposure)


def test_a_ledger_is_begun_once(tmp_path: Path) -> None:
    _kept(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        new_ledger(tmp_path / RELEASES, _KEY, "a run", _CLIENTS)
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot write"):
        new_ledger(tmp_path / "linked", _KEY, "a run", _CLIENTS)


def test_a_round_may_be_a_repeated_one_if_it_was_released_with_the_same_weights(tmp_path: Path) -> None:
    ledger = _kept(tmp_path, 2)
    assert ledger.may_repeat(2, {0: 0.5, 2: 0.25})
    assert not ledger.may_repeat(3, {0: 0.5, 2: 0.25})
    assert not ledger.may_repeat(2, {0: 0.5, 2: 0.5})
