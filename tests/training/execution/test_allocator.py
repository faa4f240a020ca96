import ctypes
import platform
import subprocess
import sys

import pytest
from helpers.processes import ENVIRONMENT, PATIENCE
from helpers.repository import IMPORTED_FROM

from fedpareto.training.execution.allocator import keep_freed_memory

_GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
_needs_glibc = pytest.mark.skipif(not _GLIBC, reason="memory is kept through glibc's mallopt")

#: Prints the pages the system fills for repeated tensors of 64 MB: as it is, and when freed memory is kept.
_REPEATS = """
import resource
import torch
from fedpareto.training.execution.allocator import keep_freed_memory
def faults(repeats):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
plain = faults(8)
assert keep_freed_memory()
# The heap grows until a block fits into the gaps that its alignment has left.
faults(16)
print(plain, faults(8))
"""


@pytest.mark.slow
@_needs_glibc
def test_with_glibc_freed_memory_is_kept_and_not_filled_by_the_system_again() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    completed = subprocess.run(
        [sys.executable, "-c", _REPEATS],
        env=environment | {"PYTHONPATH": str(IMPORTED_FROM)},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert completed.stderr == ""
    plain, kept = map(int, completed.stdout.split())
    # At the least a fault for every huge page of 2 MB.
    assert plain >= 8 * 32
    assert kept < plain / 10


def test_on_another_system_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(ctypes, "CDLL")
    assert keep_freed_memory() is False


def test_on_linux_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False


class _Library:
    """A C library that refuses some settings and remembers all that it was told."""

    def __init__(self, refused: int | None) -> None:
        self._refused, self.told = refused, list[int]()

    def mallopt(self, name: int, value: int) -> int:
        assert 0 < value < 2**31
        self.told.append(name)
        return int(name != self._refused)


@pytest.mark.parametrize("refused", [None, -1, -3, -8])
def test_a_setting_that_is_refused_spoils_no_other(monkeypatch: pytest.MonkeyPatch, refused: int | None) -> None:
    library = _Library(refused)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory() is (refused is None)
    # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h.
    assert sorted(library.told) == [-8, -3, -1]
