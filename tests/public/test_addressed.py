"""Messages speak of settings as their reader gives them: as options of a command, or as arguments of a function."""

import ast
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import check_refused, run_main
from helpers.runs.quick import QUICK

import fedpareto as fp
from fedpareto.cache.cli import main as build_cache
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.terminal.console import run_command
from fedpareto.supernet.common.terminal.words import addressed, command, option
from fedpareto.training.cli import main as train_supernet

#: An option, but for those of pip.
_OPTION = re.compile(r"--[a-z]")

_LOOSE: Any = fp


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file.jsonl").touch()
    (tmp_path / "full/deep").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _train(output="full"), "choose another output"),
        (lambda: _train(output="."), "choose another output"),
        (lambda: _train(data="cifar10"), "set data_root, or pass data_download"),
        (lambda: _train(data="arrays"), "restore it, or add data_root=FOLDER"),
        (lambda: _train(clients_count=400), "lower client_batch_size or use fewer clients_count"),
        (lambda: _train(engine="flower"), "engine flower needs flower_root_certificates=FILE"),
        (lambda: _train(method="decnas"), "e.g. decnas_budget='60M'"),
        (lambda: fp.build_cache("mobilenet-tiny", output="full/file.jsonl"), "pass overwrite to replace it"),
        (
            lambda: fp.build_cache("mobilenet-tiny", solver="exact", cold=True),
            "leave out cold, or choose solver='nsga2'",
        ),
        (lambda: fp.build_cache("mobilenet-tiny", output="a.png", plot="a.png"), "plot and output are both a.png"),
        (lambda: fp.find_subnet("mobilenet-tiny", min_fitness=float("nan")), "min_fitness is nan"),
        (fp.validate_fitness, "give either run=FOLDER, or accuracies=FILE with space"),
    ],
)
def test_who_calls_a_function_reads_of_arguments(place: Path, call: Callable[[], object], words: str) -> None:
    with pytest.raises(fp.UserError) as caught:
        call()
    assert words in str(caught.value)
    assert not _OPTION.search(str(caught.value))


def _train(**changes: Any) -> object:
    return fp.train(**{"data": "digits", "rounds": 1, "clients_count": 4, "output": "run", **QUICK, **changes})


def test_who_types_a_command_reads_of_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose another --output" in check_refused(
        run_main(train_supernet, capsys, "--output", "full"), "train-supernet"
    )
    arguments = ("--space", "mobilenet-tiny", "--solver", "exact")
    line = check_refused(run_main(build_cache, capsys, *arguments, "--output", "full/file.jsonl"), "build-cache")
    assert "pass --overwrite to replace it" in line
    line = check_refused(run_main(build_cache, capsys, *arguments, "--cold", "--output", "new.jsonl"), "build-cache")
    assert "leave out --cold, or choose --solver nsga2" in line


def test_a_run_that_is_there_is_gone_on_with_by_what_python_can_evaluate(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _LOOSE.train(data="digits", rounds=1, clients_count=4, output=place / "it's mine", **QUICK)
    with pytest.raises(fp.UserError) as caught:
        _train(output=run.folder)
    offered = ast.parse(str(caught.value).partition("go on with: ")[2], mode="eval").body
    assert isinstance(offered, ast.Call)
    assert isinstance(offered.func, ast.Name)
    given = {str(each.arg): ast.literal_eval(each.value) for each in offered.keywords}
    assert given == {"resume": str(run.folder)}
    assert getattr(_LOOSE, offered.func.id)(**given).finished
    outcome = run_main(train_supernet, capsys, "--data.name", "digits", "--output", run.folder)
    assert "go on with: train-supernet --resume " in check_refused(outcome, "train-supernet")


def test_the_reader_is_whoever_began() -> None:
    told: list[str] = []

    @checked
    def function() -> None:
        told.append(f"{option('a.b-c')} {command('train-supernet', resume='x')}")

    def whole(arguments: object) -> int:
        function()
        return 0

    function()
    with pytest.raises(SystemExit):
        run_command("name", whole, [])
    with addressed("python"), pytest.raises(SystemExit):
        # A callback may call a command, too.
        run_command("name", whole, [])
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    function()
    python, typed = "a_b_c train(resume='x')", "--a.b-c train-supernet --resume x"
    assert told == [python, typed, typed, python, python]
    assert option("a.b-c") == "--a.b-c"


def test_a_function_that_is_missing_data_names_its_argument(place: Path) -> None:
    run = fp.train(data=(np.zeros((80, 8, 8), np.uint8), np.arange(80) % 4), rounds=1, clients_count=2, output="run",
                   **QUICK)  # fmt: skip
    Path("run.images").rename("elsewhere")
    opened = fp.open_run(run.folder)
    with pytest.raises(fp.UserError, match="add data_root=FOLDER") as caught:
        opened.extract(opened.find(macs="1M", progress=False), progress=False)
    assert not _OPTION.search(str(caught.value))
    again = fp.open_run(run.folder, data_root="elsewhere")
    assert again.extract(again.find(macs="1M", progress=False), progress=False).accuracy() <= 1
