"""The installed package: its scripts, its files, and that it is what the tests import."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from helpers.commands import MODULES
from helpers.processes import finish
from helpers.repository import PYPROJECT, ROOT

PACKAGES = ("supernet", "fitness", "cache", "training", "search")

#: Words that the help of a command explains, and no other command's does.
_EXPLAINED = {
    "train-supernet": "--server.momentum",
    "search-subnet": "within limits",
    "build-cache": "over a range of MACs",
    "score-subnet": "JSON or JSON Lines file",
    "profile-device": "every distinct block",
    "compare-methods": "training methods",
    "compare-recipes": "training recipes",
    "validate-fitness": "ranks networks of equal MACs",
    "node-check": "ready to be a SuperNode",
}


def _installed_as_copy() -> bool:
    files = metadata.files("fedpareto") or []
    return any(str(file) == "fedpareto/supernet/space.py" for file in files)


@pytest.mark.parametrize("script", MODULES)
def test_every_script_explains_itself_outside_the_repository(script: str, tmp_path: Path) -> None:
    done = finish(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}" in done.stdout
    assert _EXPLAINED[script] in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed_and_imported_from_where_they_are_installed(package: str) -> None:
    folder = Path(str(importlib.import_module(f"fedpareto.{package}").__file__)).parent
    assert (folder / "py.typed").is_file()
    if _installed_as_copy():
        assert ROOT not in folder.parents or ".venv" in folder.parts


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    code = f"{Path(sys.executable).with_name('score-subnet')} --help | head -1"
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_every_package_of_the_tree_is_installed() -> None:
    setup = PYPROJECT["tool"]["setuptools"]
    tree = {path.parent.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("*.py")}
    modules = {".".join(("fedpareto", *folder.parts)) for folder in tree}
    data = {f"fedpareto.{'.'.join(path.parent.relative_to(ROOT).parts)}" for path in ROOT.glob("supernet/*/*.yaml")}
    assert set(setup["packages"]) == {"fedpareto", *modules, *data} - _carried_as_data(setup)
    assert setup["package-dir"] == {"fedpareto": "fedpareto", **{f"fedpareto.{top}": top for top in PACKAGES}}


def _carried_as_data(setup: dict[str, dict[str, list[str]]]) -> set[str]:
    """Return the folders whose Python files are data: another program loads them."""
    listed = [(package, pattern) for package, patterns in setup["package-data"].items() for pattern in patterns]
    return {f"{package}.{pattern.removesuffix('/*')}" for package, pattern in listed if pattern.endswith("/*")}


def test_a_checkout_has_a_link_for_every_package() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "fedpareto").iterdir() if path.is_symlink()}
    assert links == {top: ROOT / top for top in PACKAGES}
