"""A machine whose rates a test gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs.tuning import Rates

from fedpareto.training.engines.simulation import tuning


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the profiles of every test."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept" / "profiles"


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's kernels have tests of their own, and take a while to compile."""
    monkeypatch.setattr(tuning, "kernels_fit", lambda precision, config, device: False)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes torch say that it has some number of threads."""
    return lambda count: monkeypatch.setattr(torch, "get_num_threads", lambda: count)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """All profiles are as fast as each other; torch has one thread and can do fp32 and bf16."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(tuning, "possible_precisions", lambda device: ["fp32", "bf16"])
    return Rates(lambda profile, number: 100.0)
