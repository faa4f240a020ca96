"""Pictures, and a folder that they are kept in."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.images.kept_pictures import pass_time
from helpers.images.pictures import write_pictures

from fedpareto.supernet.common.storage.cache_folder import kept_folder
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files import reading
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that images are kept in, also those that were written a moment ago."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    pass_time(monkeypatch, 10.0)
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
