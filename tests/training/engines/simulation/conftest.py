"""A machine whose rates a test gives."""

from pathlib import Path

import pytest
from helpers.runs.tuning import Rates


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the profiles of every test."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept" / "profiles"


@pytest.fixture
def clock() -> Rates:
    """All profiles are as fast as each other, on a machine of one thread that can do fp32 and bf16."""
    return Rates(lambda profile, number: 100.0)
