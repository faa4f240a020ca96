"""The installed package: its scripts, its files, and that it is what the tests import."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from processes import finish

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("supernet", "fitness", "cache", "training", "search")

#: The commands, and a word that their help explains.
SCRIPTS = {
    "train-supernet": "MACs",
    "search-subnet": "MACs",
    "build-cache": "MACs",
    "score-subnet": "MACs",
    "profile-device": "onnxruntime",
}


def _installed_as_copy() -> bool:
    files = metadata.files("fedpareto") or []
    return any(str(file) == "supernet/space.py" for file in files)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_outside_the_repository(script: str, tmp_path: Path) -> None:
    done = finish(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}" in done.stdout
    assert SCRIPTS[script] in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed_and_imported_from_where_they_are_installed(package: str) -> None:
    folder = Path(str(importlib.import_module(package).__file__)).parent
    assert (folder / "py.typed").is_file()
    if _installed_as_copy():
        assert REPOSITORY not in folder.parents or ".venv" in folder.parts


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    commands = "training.cli, search.cli, search.latency.cli, cache.cli, fitness.cli"
    code = f"import sys, {commands}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    code = f"{Path(sys.executable).with_name('score-subnet')} --help | head -1"
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
