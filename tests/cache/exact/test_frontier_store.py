import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from helpers.networks.strategies import preset, tiny_space
from helpers.processes import ENVIRONMENT, PATIENCE, wait_until
from helpers.repository import IMPORTED_FROM
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import fedpareto.cache.exact.frontier_store
from fedpareto.cache.exact.frontier import Frontier, exact_frontier
from fedpareto.cache.exact.frontier_store import (
    KeptFrontierError,
    kept_path,
    load_or_compute_frontier,
    read_frontier,
    write_frontier,
)
from fedpareto.supernet.common.storage.cache_folder import VARIABLE, NowhereKeptError, kept_folder
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings

SPACE = dataclasses.replace(tiny_space(), resolutions=(8,), depths=(1, 2), kernels=(3,))
WEIGHTS = FitnessSettings(effectiveness_weight=3.0, max_effectiveness=2.0)
METADATA = {"format": "fedpareto-frontier", "version": "1", "space": SPACE.name}
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the frontiers of every test."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept" / "frontiers"


@pytest.fixture(scope="module")
def expected() -> Frontier:
    return exact_frontier(SPACE, WEIGHTS)


def _check_equal(found: Frontier, expected: Frontier) -> None:
    assert (found.space, found.fitness, found.extra) == (expected.space, expected.fitness, expected.extra)
    for name in ("genes", "macs", "values"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def _find(weights: FitnessSettings = WEIGHTS) -> tuple[Frontier, list[str], int]:
    """Find the frontier; also return what the listener was told, and how often work was reported."""
    remarks: list[str] = []
    reports: list[int] = []
    listener = ProgressListener(lambda what, done, total: reports.append(done), remarks.append)
    return load_or_compute_frontier(SPACE, weights, listener), remarks, len(reports)


def test_a_frontier_is_computed_once_and_kept(folder: Path, expected: Frontier) -> None:
    computed, remarks, reports = _find()
    assert (remarks, reports > 0) == ([], True)
    _check_equal(computed, expected)
    path = kept_path(SPACE, WEIGHTS)
    assert list(folder.iterdir()) == [path]
    before = path.stat()
    read, remarks, reports = _find()
    assert (remarks, reports) == ([], 0)
    _check_equal(read, expected)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_kept_frontier_answers_without_being_solved(monkeypatch: pytest.MonkeyPatch, expected: Frontier) -> None:
    write_frontier(kept_path(SPACE, WEIGHTS), expected)
    monkeypatch.delattr(fedpareto.cache.exact.frontier_store, "exact_frontier")
    _check_equal(load_or_compute_frontier(SPACE, WEIGHTS), expected)


def test_an_empty_frontier_is_kept_too() -> None:
    weights = dataclasses.replace(WEIGHTS, max_effectiveness=1e-6)
    assert len(_find(weights)[0].macs) == 0
    found, remarks, reports = _find(weights)
    assert (len(found.macs), remarks, reports) == (0, [], 0)
    assert found.genes.shape == (0, exact_frontier(SPACE, WEIGHTS).genes.shape[1])


def test_spaces_and_weights_have_files_of_their_own() -> None:
    spaces = [
        SPACE,
        SPACE.adapted(classes=7),
        dataclasses.replace(SPACE, resolutions=(8, 12)),
        dataclasses.replace(SPACE, name="other"),
        preset("resnet-cifar"),
    ]
    weights = [
        WEIGHTS,
        dataclasses.replace(WEIGHTS, entropy="prefix"),
        dataclasses.replace(WEIGHTS, entropy_weights=(1.0, 1.0, 2.0)),
        dataclasses.replace(WEIGHTS, depth_penalty=9.0),
        dataclasses.replace(WEIGHTS, effectiveness_weight=-3.0),
        dataclasses.replace(WEIGHTS, width_penalty=0.5),
        dataclasses.replace(WEIGHTS, kind_weights=(1.0, 0.5, 1.0)),
        dataclasses.replace(WEIGHTS, block_penalty=2.0),
        dataclasses.replace(WEIGHTS, max_effectiveness=2.5),
    ]
    assert len({kept_path(space, weight) for space in spaces for weight in weights}) == 45


def test_weights_of_caches_and_a_spaces_own_weights_do_not_matter() -> None:
    path = kept_path(SPACE, WEIGHTS)
    assert kept_path(SPACE, dataclasses.replace(WEIGHTS, cache_max_effectiveness=0.5)) == path
    assert kept_path(dataclasses.replace(SPACE, fitness=WEIGHTS), WEIGHTS) == path


@pytest.mark.parametrize("name", ["../../up", "a/b\\c", ".", "ä " * 200, "x\0y", "con:"])
def test_a_file_is_in_the_folder_whatever_the_spaces_name(folder: Path, name: str) -> None:
    path = kept_path(dataclasses.replace(SPACE, name=name), WEIGHTS)
    assert path.parent == folder
    assert len(path.name) < 100
    assert path.suffix == ".safetensors"


def test_the_folder_is_the_platforms_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDPARETO_CACHE_DIR")
    default = Path(platformdirs.user_cache_path("fedpareto")) / "frontiers"
    assert kept_folder("frontiers") == default
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", "")
    assert kept_folder("frontiers") == default
    assert kept_path(SPACE, WEIGHTS).parent == default


def _check_rebuilt(expected: Frontier, *words: str) -> None:
    """Check that a frontier of no use is computed again with one remark that names the file, which then is good."""
    path = kept_path(SPACE, WEIGHTS)
    found, remarks, reports = _find()
    _check_equal(found, expected)
    assert reports > 0
    (remark,) = remarks
    assert "\n" not in remark
    assert remark.endswith("; computing it again")
    for word in (str(path), *words):
        assert word in remark
    _check_equal(read_frontier(path, SPACE, WEIGHTS), expected)
    assert _find()[1:] == ([], 0)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_computed_again(share: float, expected: Frontier) -> None:
    path = kept_path(SPACE, WEIGHTS)
    write_frontier(path, expected)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    _check_rebuilt(expected, "is damaged")


@pytest.mark.parametrize("content", [b"no frontier", b"\xff" * 500, b"\0" * 500])
def test_a_file_that_is_something_else_is_computed_again(content: bytes, expected: Frontier) -> None:
    path = kept_path(SPACE, WEIGHTS)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    _check_rebuilt(expected, "is damaged")


@pytest.mark.parametrize("metadata", [METADATA | {"version": "2"}, METADATA | {"version": "1.0"}, {}, None])
def test_a_file_of_another_version_is_computed_again(metadata: dict[str, str] | None, expected: Frontier) -> None:
    path = kept_path(SPACE, WEIGHTS)
    write_frontier(path, expected)
    save_file(load_file(path), path, metadata)
    _check_rebuilt(expected, f"is of version {(metadata or {}).get('version')}, not 1")


def _change(arrays: Arrays, name: str, index: int, amount: float) -> Arrays:
    changed = arrays[name].copy()
    changed[index] += np.array(amount).astype(changed.dtype)
    return arrays | {name: changed}


def _swapped(arrays: Arrays) -> Arrays:
    return {name: values[::-1].copy() for name, values in arrays.items()}


_ALTERED: list[tuple[str, Callable[[Arrays], Arrays]]] = [
    ("macs", lambda arrays: _change(arrays, "macs", 3, 1)),
    ("fitness", lambda arrays: _change(arrays, "fitness", -1, 1e-4)),
    ("genes", lambda arrays: arrays | {"genes": np.concatenate([arrays["genes"][:-1], arrays["genes"][:1]])}),
    ("order", _swapped),
    ("fewer genes", lambda arrays: arrays | {"genes": arrays["genes"][1:].copy()}),
    ("fewer macs", lambda arrays: arrays | {"macs": arrays["macs"][1:].copy()}),
]


_WRONG: list[tuple[str, Callable[[Arrays], Arrays]]] = [
    ("no genes", lambda arrays: {name: values for name, values in arrays.items() if name != "genes"}),
    ("no fitness", lambda arrays: {name: values for name, values in arrays.items() if name != "fitness"}),
    ("nothing", lambda arrays: {}),
    ("columns", lambda arrays: arrays | {"genes": arrays["genes"][:, 1:].copy()}),
    ("range", lambda arrays: arrays | {"genes": (arrays["genes"] + 9).astype(np.uint16)}),
    ("cube", lambda arrays: arrays | {"genes": arrays["genes"][None].copy()}),
    ("scalar", lambda arrays: arrays | {"genes": np.array(3)}),
    ("fewer values", lambda arrays: arrays | {"fitness": arrays["fitness"][1:].copy()}),
    ("square of values", lambda arrays: arrays | {"fitness": np.outer(arrays["fitness"], arrays["fitness"])}),
    ("one value", lambda arrays: arrays | {"fitness": np.array(1.0)}),
    ("not a number", lambda arrays: _change(arrays, "fitness", 0, np.nan)),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in (*_ALTERED, *_WRONG)])
def test_altered_figures_and_tensors_that_are_no_frontier_are_computed_again(
    change: Callable[[Arrays], Arrays], expected: Frontier
) -> None:
    path = kept_path(SPACE, WEIGHTS)
    write_frontier(path, expected)
    save_file(change(load_file(path)), path, METADATA)
    _check_rebuilt(expected)


def test_a_frontier_of_other_weights_under_a_files_name_is_computed_again(expected: Frontier) -> None:
    other = exact_frontier(SPACE, dataclasses.replace(WEIGHTS, depth_penalty=3.0))
    write_frontier(kept_path(SPACE, WEIGHTS), other)
    _check_rebuilt(expected, "figures")


def test_a_damaged_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "frontier.safetensors"
    for content in (None, b"", b"short"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(KeptFrontierError, match=r"frontier\.safetensors is damaged"):
            read_frontier(path, SPACE, WEIGHTS)


def test_where_nothing_can_be_written_the_frontier_is_returned_with_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Frontier
) -> None:
    # A file where the folder would be: that refuses the superuser, too.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(blocked))
    found, remarks, _ = _find()
    _check_equal(found, expected)
    (remark,) = remarks
    assert remark.startswith(f"cannot write {kept_path(SPACE, WEIGHTS)}: ")
    assert remark.endswith("; the frontier is not kept (choose a folder with FEDPARETO_CACHE_DIR)")
    assert sorted(tmp_path.iterdir()) == [blocked]


def test_a_folder_in_place_of_the_file_is_no_obstacle(expected: Frontier) -> None:
    kept_path(SPACE, WEIGHTS).mkdir(parents=True)
    found, remarks, _ = _find()
    _check_equal(found, expected)
    assert len(remarks) == 2
    assert list(kept_path(SPACE, WEIGHTS).parent.iterdir()) == [kept_path(SPACE, WEIGHTS)]


_BUILD = """
import sys, time
from pathlib import Path
from typing import Any
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier, kept_path
from fedpareto.supernet.space_file import load_space
space = load_space("mobilenet-tiny")
Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
print(len(load_or_compute_frontier(space, space.fitness).macs))
"""


@pytest.mark.slow
def test_processes_that_keep_a_frontier_at_once_leave_one_good_file(folder: Path, tmp_path: Path) -> None:
    space, go = tiny_space(), tmp_path / "go"
    ready = [tmp_path / f"ready-{number}" for number in range(2)]
    root = str(IMPORTED_FROM)
    environment = ENVIRONMENT | {"FEDPARETO_CACHE_DIR": str(folder.parent), "PYTHONPATH": root}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BUILD, str(path), str(go)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for path in ready
    ]
    for path, process in zip(ready, processes, strict=True):
        wait_until(path.exists, process)
    go.touch()
    outcomes = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in processes]
    expected = exact_frontier(space, space.fitness)
    assert outcomes == [(f"{len(expected.macs)}\n", "", 0)] * 2
    path = kept_path(space, space.fitness)
    assert list(folder.iterdir()) == [path]
    _check_equal(read_frontier(path, space, space.fitness), expected)


def test_a_user_without_a_home_keeps_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Frontier
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    # What is left of the tilde where neither HOME nor the system's users say what it stands for.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(NowhereKeptError, match=f"name a folder with {VARIABLE}"):
        kept_folder("frontiers")
    found, remarks, _ = _find()
    _check_equal(found, expected)
    assert remarks == [
        f"this user has no home folder to keep things in; name a folder with {VARIABLE}; the frontier is not kept"
    ]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["file", "file/a", "loop", "n" * 300])
def test_a_cache_folder_that_is_none_keeps_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Frontier, name: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv(VARIABLE, str(tmp_path / name))
    found, (remark,), _ = _find()
    _check_equal(found, expected)
    assert str(tmp_path / name) in remark
    assert "the frontier is not kept" in remark
