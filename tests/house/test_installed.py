"""The installed package: its scripts, its files, and that it is what the tests import."""

import importlib
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from helpers.processes import finish
from helpers.repository import ROOT

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
    return any(str(file) == "fedpareto/supernet/space.py" for file in files)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_outside_the_repository(script: str, tmp_path: Path) -> None:
    done = finish(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}" in done.stdout
    assert SCRIPTS[script] in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed_and_imported_from_where_they_are_installed(package: str) -> None:
    folder = Path(str(importlib.import_module(f"fedpareto.{package}").__file__)).parent
    assert (folder / "py.typed").is_file()
    if _installed_as_copy():
        assert ROOT not in folder.parents or ".venv" in folder.parts


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    modules = ("training.cli", "search.cli", "search.profiling.cli", "cache.cli", "fitness.cli")
    commands = ", ".join(f"fedpareto.{module}" for module in modules)
    code = f"import sys, {commands}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    code = f"{Path(sys.executable).with_name('score-subnet')} --help | head -1"
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_every_package_of_the_tree_is_installed() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        setup = tomllib.load(file)["tool"]["setuptools"]
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
