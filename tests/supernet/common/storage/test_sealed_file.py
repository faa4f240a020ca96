"""Sealed objects as files: what is written is read, and what was changed is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.sealed_file import read_sealed, write_sealed


def test_what_is_written_is_read_without_its_seal(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_sealed(path, {"label": "one", "compute": 3})
    fields = read_sealed(path)
    assert dict(fields.values) == {"label": "one", "compute": 3}
    assert fields.source == str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("3", "4"), r"result\.json is damaged \(its digest does not fit\)"),
        (lambda text: text[:-5], r"result\.json is not valid JSON"),
        (lambda text: "[1]", r"result\.json"),
    ],
    ids=["another number", "cut", "a list"],
)
def test_a_changed_file_is_refused_in_one_line(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "result.json"
    write_sealed(path, {"label": "one", "compute": 3})
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        read_sealed(path)
    assert "\n" not in str(caught.value)
