"""What commands import before they know what is asked of them; nothing here is timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import MODULES

#: Packages that take a tenth of a second and more.
_HEAVY = (
    *("torch", "torchvision", "scipy", "pymoo", "sklearn", "pandas", "pyarrow", "datasets", "flwr_datasets", "flwr"),
    *("matplotlib", "seaborn", "wandb", "jinja2", "onnx", "onnxruntime", "onnxscript", "numba", "sympy", "ray"),
)

#: Options that every command, or one, refuses, beside what help is.
_QUESTIONS = {"train-supernet": [["--rounds", "0"], ["--decnas.budget", "2M"], ["--rounds", "many"]]}

_PROGRAM = """
import contextlib, importlib, io, json, sys
module, questions, heavy = (json.loads(argument) for argument in sys.argv[1:])
main = importlib.import_module(module).main
for question in questions:
    ended, told = None, io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main(question)
        except SystemExit as end:
            ended = end.code
    print(json.dumps([ended, [name for name in heavy if name in sys.modules], told.getvalue()]))
"""


def _answers(command: str, questions: list[list[str]], unwanted: tuple[str, ...] = _HEAVY) -> list[tuple[object, ...]]:
    """Ask a command in one fresh process; return each exit code, what is imported by then, and what it has printed."""
    asked = (json.dumps(part) for part in (MODULES[command], questions, unwanted))
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *asked], capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("command", MODULES)
def test_help_and_mistakes_are_answered_without_heavy_libraries(command: str) -> None:
    questions = [["--help"], ["--no-such-option"], *_QUESTIONS.get(command, [])]
    answers = _answers(command, questions)
    assert [(code, loaded) for code, loaded, _ in answers] == [(0, []), *[(2, [])] * (len(questions) - 1)]
    assert f"usage: {command}" in str(answers[0][2])
    assert f"{command}: error: there is no option --no-such-option" in str(answers[1][2])


def test_a_cache_off_the_frontier_is_built_without_heavy_libraries(tmp_path: Path) -> None:
    options = ["--space", "mobilenet-tiny", "--output", str(tmp_path / "cache.jsonl"), "--entries", "5"]
    ((code, loaded, told),) = _answers("build-cache", [options])
    assert (code, loaded) == (0, []), told
    assert "optimality gap: 0" in str(told)


@pytest.mark.slow
def test_training_imports_torch_alone_of_the_heavy_libraries(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--clients.count", "4", "--clients.per-round", "2", "--tracking.wandb", "off"]
    options += ["--execution.kernels", "torch"]
    unwanted = (*(name for name in _HEAVY if name != "torch"), "torch._dynamo")
    ((code, loaded, told),) = _answers("train-supernet", [[*options, "--output", str(tmp_path / "run")]], unwanted)
    assert (code, loaded) == (0, []), told
