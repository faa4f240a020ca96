"""Every command against what a file system and a text editor can do: one line, exit code 2, nothing on disk changed."""

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import MODULES, check_refused, run_main
from helpers.runs.federation import micro_config, write_micro

from fedpareto.training.config.run import write_config

_TINY = ("--space", "mobilenet-tiny")

#: For every option of every command that names something to read: the command line it completes.
_READING: dict[str, tuple[str, tuple[str, ...]]] = {
    "build-cache --space": ("build-cache", ("--output", "new.jsonl", "--space")),
    "build-cache --fitness": ("build-cache", (*_TINY, "--output", "new.jsonl", "--fitness")),
    "train-supernet --config": ("train-supernet", ("--config",)),
    "train-supernet --resume": ("train-supernet", ("--resume",)),
    "train-supernet --space": ("train-supernet", ("--config", "train.yaml", "--output", "new", "--space")),
    "train-supernet --cache": ("train-supernet", ("--config", "train.yaml", "--cache")),
    "train-supernet --fitness": ("train-supernet", (*_TINY, "--output", "new", "--fitness")),
    "train-supernet --clients.file": ("train-supernet", ("--config", "train.yaml", "--clients.file")),
    "train-supernet --clients.latency-table": (
        "train-supernet",
        ("--config", "train.yaml", "--clients.max-latency", "5ms", "--clients.latency-table"),
    ),
    "train-supernet --fedavg.architecture": (
        "train-supernet",
        ("--config", "train.yaml", "--method", "fedavg", "--fedavg.architecture"),
    ),
    "train-supernet --flower.root-certificates": (
        "train-supernet",
        ("--config", "train.yaml", "--engine", "flower", "--flower.root-certificates"),
    ),
    "search-subnet --space": ("search-subnet", ("--flops-budget", "60K", "--space")),
    "search-subnet --run": ("search-subnet", ("--flops-budget", "60K", "--run")),
    "search-subnet --fitness": ("search-subnet", (*_TINY, "--flops-budget", "1M", "--fitness")),
    "search-subnet --targets": ("search-subnet", (*_TINY, "--targets")),
    "search-subnet --latency-table": ("search-subnet", (*_TINY, "--latency-budget", "5ms", "--latency-table")),
    "score-subnet --space": ("score-subnet", ("network.json", "--space")),
    "score-subnet --fitness": ("score-subnet", ("network.json", *_TINY, "--fitness")),
    "score-subnet FILE": ("score-subnet", _TINY),
    "profile-device --space": ("profile-device", ("--output", "new.json", "--space")),
    "profile-device --run": ("profile-device", ("--output", "new.json", "--run")),
    "compare-methods --config": ("compare-methods", ("--config",)),
    "compare-recipes --config": ("compare-recipes", ("--config",)),
    "validate-fitness --run": ("validate-fitness", ("--run",)),
    "validate-fitness --accuracies": ("validate-fitness", (*_TINY, "--accuracies")),
    "validate-fitness --space": ("validate-fitness", ("--accuracies", "network.json", "--space")),
    "validate-fitness --fitness": ("validate-fitness", (*_TINY, "--accuracies", "network.json", "--fitness")),
}

#: The same for every option that names something to write.
_WRITING: dict[str, tuple[str, tuple[str, ...]]] = {
    "build-cache --output": ("build-cache", (*_TINY, "--output")),
    "build-cache --plot": ("build-cache", (*_TINY, "--output", "new.jsonl", "--plot")),
    "train-supernet --output": ("train-supernet", ("--config", "train.yaml", "--output")),
    "search-subnet --output": ("search-subnet", (*_TINY, "--flops-budget", "1M", "--output")),
    "search-subnet --plot": ("search-subnet", (*_TINY, "--flops-budget", "1M", "--plot")),
    "search-subnet --report": ("search-subnet", (*_TINY, "--flops-budget", "1M", "--report")),
    "profile-device --output": ("profile-device", (*_TINY, "--output")),
    "compare-methods --output": ("compare-methods", ("--config", "study.yaml", "--output")),
    "compare-recipes --output": ("compare-recipes", ("--config", "levers.yaml", "--output")),
}

#: Options whose value is read as YAML.
_YAML = [name for name in _READING if name.endswith(("--config", "--targets", "--fitness", "--space"))]

_LONG_NAME, _LONG_PATH = "n" * 300, "/".join(["folder"] * 800)

#: Paths that nothing can be read from, and those that nothing can be written to.
_UNREADABLE = ["nowhere/a", "file/a", "loop", "loop/a", _LONG_NAME, _LONG_PATH, "", "empty", "\udcff", "a\nb", "device"]
_UNWRITABLE = [
    "file/a",
    "file/a/b",
    "loop/a",
    _LONG_NAME,
    f"a/{_LONG_NAME}",
    "n" * 250,
    _LONG_PATH,
    "/proc/a",
    "full",
    "",
]

#: What is no mapping of settings, whatever is in it.
_NO_YAML = {
    "empty": b"",
    "nothing": b"# a remark\n",
    "scalar": b"digits",
    "list": b"- a\n- b\n",
    "twice": b"name: a\nname: b\n",
    "null field": b"name:\nfamily:\nrun:\nclient:\nblock_penalty:\n",
    "unknown field": b"colour: red\n",
    "list as name": b"? [a]\n: b\n",
    "utf-16": "name: a".encode("utf-16"),
    "utf-16-le": "name: a".encode("utf-16-le"),
    "latin-1": "name: é".encode("latin-1"),
    "nul": b"name: a\0\n",
    "nul escaped": b'"name\\0": a\n',
    "control": b"name: \x1b[31m\n",
    "python": b"!!python/object/apply:os.system [touch hacked]\n",
    "bomb": b"a: &a [x, x]\n" + b"".join(b"a%d: &a%d [*a, *a]\na: &a [*a%d, *a%d]\n" % (n, n, n, n) for n in range(9)),
    "circle": b"name: &a {b: *a}\n",
    "deep": b"{a: " * 5000,
    "tab": b"name:\n\ta: 1\n",
    "half": b"name: [a, {b: c",
    "two documents": b"name: a\n--- \nname: b\n",
    "binary": bytes(range(256)),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the command lines above name, and with what nobody can read."""
    folder = tmp_path_factory.mktemp("prepared")
    config = micro_config(folder, output=None)
    write_config(folder / "train.yaml", config)
    space, _ = write_micro(folder)
    (folder / "network.json").write_text(json.dumps({"family": "mobilenet"}))
    (folder / "study.yaml").write_text(
        f"name: study\nmethods: {{maxnet: {{method: deepfednas}}}}\nseeds: [0]\nbudgets: [60K]\n"
        f"run: {{space: {space}, compute: 1M}}\n"
    )
    (folder / "levers.yaml").write_text(
        f"name: levers\nsettings: {{one: {{space: {space}, compute: 1M}}}}\nseeds: [0]\nbudgets: [60K]\n"
        "levers: {slow: {client: {lr: 0.01}}}\n"
    )
    for name in ("file", "a.png"):
        (folder / name).write_text("text")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").mkdir()
    (folder / "device").symlink_to("/dev/zero")
    for name in ("full", "full.png", "full.html"):
        (folder / name).symlink_to("/dev/full")
    return folder


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent) / name
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (path.lstat().st_mtime_ns if content else 0, content)
    return found


def _refused(prepared: Path, capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    before = _files(prepared)
    line = check_refused(run_main(importlib.import_module(MODULES[command]).main, capsys, *arguments), command)
    assert _files(prepared) == before
    return line


def _some(values: Sequence[str], number: int, thorough: bool) -> Sequence[str]:
    """A quarter of the values, others for every number; all of them where it is to be thorough."""
    return values if thorough else values[number % 4 :: 4]


#: In the quick suite every option meets some of what there is, and all options together all of it.
_THOROUGH = pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])


@_THOROUGH
@pytest.mark.parametrize("name", _READING)
def test_what_cannot_be_read_is_refused_in_one_line(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, thorough: bool
) -> None:
    monkeypatch.chdir(prepared)
    command, arguments = _READING[name]
    for path in _some(_UNREADABLE, list(_READING).index(name), thorough):
        _refused(prepared, capsys, command, *arguments, path)


@pytest.mark.parametrize("name", [name for name in _READING if name.endswith(("--space", "--fitness", "--targets"))])
def test_a_yaml_file_that_cannot_be_read_is_named(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(prepared)
    command, arguments = _READING[name]
    for path in ("nowhere/a.yaml", "file/a.yaml", "loop/a.yaml", f"{_LONG_NAME}.yaml", f"{_LONG_PATH}.yaml"):
        assert f"cannot read {path}: " in _refused(prepared, capsys, command, *arguments, path)


@pytest.mark.parametrize("name", _WRITING)
def test_what_cannot_be_written_is_refused_in_one_line_before_any_work(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(prepared)
    command, arguments = _WRITING[name]
    suffix = {"--plot": ".png", "--report": ".html"}.get(name.split()[1], "")
    _refused(prepared, capsys, command, *arguments, "")
    for path in _UNWRITABLE:
        _refused(prepared, capsys, command, *arguments, path + suffix)
    # With a suffix these are names of files, and a study goes on in a folder that is there.
    if not suffix and command not in ("compare-methods", "compare-recipes"):
        for path in (".", "..", "/"):
            _refused(prepared, capsys, command, *arguments, path)


@_THOROUGH
@pytest.mark.parametrize("kind", _NO_YAML)
def test_what_holds_no_settings_is_refused_in_one_line_that_names_the_file(
    prepared: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    thorough: bool,
) -> None:
    monkeypatch.chdir(prepared)
    path = tmp_path / "settings.yaml"
    path.write_bytes(_NO_YAML[kind])
    for name in _some(_YAML, list(_NO_YAML).index(kind), thorough):
        command, arguments = _READING[name]
        assert str(path) in _refused(prepared, capsys, command, *arguments, str(path))
    assert os.listdir(tmp_path) == ["settings.yaml"]


def test_a_folder_that_may_not_be_searched_is_one_line(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    original = os.stat

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(Path, "stat", stat)
    for name in ("train-supernet --resume", "search-subnet --run", "profile-device --run", "search-subnet --targets"):
        command, arguments = _READING[name]
        line = _refused(prepared, capsys, command, *arguments, "secret/run")
        assert "Permission denied" in line
        assert "secret/run" in line
    for name in ("build-cache --output", "train-supernet --output", "profile-device --output"):
        command, arguments = _WRITING[name]
        assert "Permission denied" in _refused(prepared, capsys, command, *arguments, "secret/run")
