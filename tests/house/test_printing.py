"""What may print, and how: held to by a look at every line of the product."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import MODULES
from helpers.repository import ROOT

_FILES = sorted(
    path
    for package in ("supernet", "fitness", "cache", "training", "search")
    for path in (ROOT / package).rglob("*.py")
)

#: What is counted somewhere, and by whom. MACs and bytes are units.
_NOUNS = (
    *("architecture", "band", "batch", "block", "candidate", "channel", "choice", "class", "client", "entry", "epoch"),
    *("example", "file", "folder", "generation", "image", "iteration", "job", "layer", "line", "logit", "method"),
    *("network", "node", "parameter", "picture", "pixel", "point", "probe", "process", "round", "run", "seed", "stage"),
    *("subnet", "target", "thread", "time", "update", "value", "weight", "worker"),
)


#: Is copied onto devices without anything else of ours.
_ALONE = ROOT / "search" / "export" / "deploy.py"
_FILES.remove(_ALONE)


def _texts() -> Iterator[tuple[str, ast.JoinedStr]]:
    for path in _FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("rich", {"supernet/common/terminal/console.py", "supernet/common/terminal/display.py"}),
        ("matplotlib.figure", {"cache/figures.py", "cache/plot.py", "search/comparison/results/plot.py"}),
        ("shlex", {"supernet/common/terminal/words.py"}),
        ("jinja2", {"search/reports/page/page.py"}),
    ],
)
def test_one_place_prints_one_draws_and_one_quotes(library: str, users: set[str]) -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in _FILES
        if any(name == library or name.startswith(f"{library}.") for name in _imports(path))
    }
    assert found <= users


def test_nothing_prints_but_the_console() -> None:
    printing = ("print", "sys.stdout.write", "sys.stderr.write", "rich.print")
    found = {str(path.relative_to(ROOT)) for path in _FILES for call in _calls(path) if call in printing}
    # A parser's mistake has the same form; what wandb's process is told is a protocol.
    assert found <= {
        "supernet/common/terminal/console.py",
        "supernet/common/command_line.py",
        "training/trackers/wandb_mirror.py",
    }


def test_no_count_has_its_noun_written_beside_it() -> None:
    several = "|".join(("entries", "batches", "classes", "processes", *(f"{noun}s" for noun in _NOUNS)))
    beside = re.compile(rf"^ (?!of|and|has|needs)(?:[a-z]+ )?({several})\b(?!/)")
    found = []
    for where, text in _texts():
        for value, after in zip(text.values, text.values[1:], strict=False):
            counts = isinstance(value, ast.FormattedValue) and not ast.unparse(value.value).startswith("format_")
            if counts and isinstance(after, ast.Constant) and beside.match(f"{after.value!s}"):
                found.append(f"{where}: {ast.unparse(value)}{after.value!s}")
    assert found == []


def test_no_command_is_put_together_by_hand() -> None:
    """A path in it would not be quoted: ``words.command`` does."""
    typed = re.compile(rf"\b({'|'.join(MODULES)}|python|wandb sync) (--[\w.-]+[ =])?(\S+ )*$")
    found = []
    for where, text in _texts():
        for before, value in zip(text.values, text.values[1:], strict=False):
            if isinstance(before, ast.Constant) and typed.search(f"{before.value!s}"):
                found.append(f"{where}: {before.value!s}{ast.unparse(value)}")
    assert found == []
