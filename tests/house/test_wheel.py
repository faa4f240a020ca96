"""The built wheel where names clash: beside a user's files and another wheel's package of our folders' names."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from helpers.processes import ENVIRONMENT
from helpers.repository import PYPROJECT, ROOT

#: What a wheel is built from.
_SOURCES = ("fedpareto", "supernet", "fitness", "cache", "training", "search", "pyproject.toml", "README.md", "LICENSE")

#: Files of a user that have names of our folders.
_OF_A_USER = ("search.py", "training.py", "supernet.py", "cache/__init__.py", "fitness/__init__.py")

#: The package of another wheel.
_OF_ANOTHER = 'OWNER = "another"\n'


def _missing() -> str | None:
    """Why no wheel can be built and installed here; None where one can."""
    if importlib.util.find_spec("pip") is None:
        return "there is no pip here"
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        return "there is no setuptools here"
    return None if int(version.split(".")[0]) >= 77 else f"setuptools is {version}; wheels need 77"


def _pip(*arguments: object) -> None:
    """Run pip without a network."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *map(str, arguments),
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    if reason := _missing():
        pytest.skip(reason)
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    _pip("wheel", "--no-build-isolation", "--wheel-dir", built, tree)
    (file,) = built.iterdir()
    return file


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, after another wheel with a package ``search``."""
    folder = tmp_path_factory.mktemp("target")
    (folder / "search").mkdir()
    (folder / "search" / "__init__.py").write_text(_OF_ANOTHER)
    # As an upgrade, which replaces folders of the names that a wheel ships.
    _pip("install", "--upgrade", "--target", folder, wheel)
    return folder


@pytest.fixture
def working_folder(tmp_path: Path) -> Path:
    """A working folder of a user's own modules, none of which may be imported."""
    for name in _OF_A_USER:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise ImportError('{name} of the user is imported')\n")
    return tmp_path


def _python(program: str, target: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, whose modules come first, then those of the target."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(target)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _command(module: str, *arguments: str, target: Path, folder: Path) -> str:
    """Run a command of the installed wheel in a folder; return what it prints."""
    program = f"import sys; from {module} import main; main({list(arguments)!r})"
    done = _python(program, target, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_working_folder_would_be_imported_by_a_common_name(target: Path, working_folder: Path) -> None:
    """Without which the tests below would say nothing."""
    assert "search.py of the user is imported" in _python("import search", target, working_folder).stderr


def test_the_wheel_holds_one_import_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (record,) = [name for name in file.namelist() if name.endswith(".dist-info/RECORD")]
        names = {line.split(",")[0] for line in file.read(record).decode().splitlines()}
    version = PYPROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"fedpareto", f"fedpareto-{version}.dist-info"}
    assert {"fedpareto/search/subnet.py", "fedpareto/training/engines/flower/bundle/fedpareto_app.py"} < names


def test_it_is_imported_beside_a_users_modules(target: Path, working_folder: Path) -> None:
    program = (
        "import fedpareto, sys; from fedpareto.search.subnet import load_subnet\n"
        "print(fedpareto.__file__, sys.modules[load_subnet.__module__].__file__, sep='\\n')"
    )
    done = _python(program, target, working_folder)
    assert done.returncode == 0, done.stderr
    files = [target / "fedpareto" / "__init__.py", target / "fedpareto" / "search" / "subnet.py"]
    assert done.stdout.splitlines() == [str(file) for file in files]


def test_it_is_imported_beside_another_wheels_package(target: Path, tmp_path: Path) -> None:
    assert (target / "search" / "__init__.py").read_text() == _OF_ANOTHER
    assert os.listdir(target / "search") == ["__init__.py"]
    program = "import search, fedpareto.search.subnet; print(search.OWNER, fedpareto.search.__name__)"
    done = _python(program, target, tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("another fedpareto.search", "")


def test_commands_run_beside_a_users_modules(target: Path, working_folder: Path) -> None:
    here = {"target": target, "folder": working_folder}
    assert "usage: train-supernet" in _command("fedpareto.training.cli", "--help", **here)
    few = ("--space", "mobilenet-tiny", "--entries", "3", "--solver", "exact")
    _command("fedpareto.cache.cli", *few, "--output", "cache.jsonl", **here)
    scores = _command("fedpareto.fitness.cli", "--space", "mobilenet-tiny", "--json", "cache.jsonl", **here)
    assert len(scores.splitlines()) == 3
