"""Docstrings name the thing first: no riddles at their beginning, and a module's first line is a sentence."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.repository import ROOT

PACKAGES = ("fedpareto", "supernet", "fitness", "cache", "training", "search")
#: Openings that ask a question, "Return what …", or answer one that was not asked, "What …", instead of naming a thing.
QUESTION = "what|how|whether|which|where|why|who|when|by how"
RIDDLE = re.compile(rf"(Return|Yield|Print|Say|Tell) ({QUESTION}|of) |({QUESTION}|of) ", re.IGNORECASE)
#: Most characters of a module's first line.
LONGEST = 120


def _files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def _riddles(source: str) -> list[str]:
    """Return the first lines of the docstrings in Python source that begin with a riddle."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text.splitlines()[0] for node in nodes if (text := ast.get_docstring(node)) and RIDDLE.match(text)]


def _first_line(source: str) -> str:
    """Return the first line of the docstring of Python source; empty without one."""
    return (ast.get_docstring(ast.parse(source)) or "").split("\n", 1)[0]


def _is_sentence(line: str) -> bool:
    return bool(line) and len(line) <= LONGEST and line.endswith(".")


def test_no_docstring_begins_with_a_riddle() -> None:
    found = {str(path.relative_to(ROOT)): _riddles(path.read_text(encoding="utf-8")) for path in _files()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_every_module_begins_with_a_sentence() -> None:
    first = {str(path.relative_to(ROOT)): _first_line(path.read_text(encoding="utf-8")) for path in _files()}
    assert {path: line for path, line in first.items() if not _is_sentence(line)} == {}


@pytest.mark.parametrize(
    "text", ["Return what is asked.", "What a device allows.", "Yield which is best.", "How it is done."]
)
def test_a_riddle_is_found(text: str) -> None:
    assert _riddles(f'def of():\n    """{text}"""\n') == [text]
    assert _riddles(f'"""{text}"""\n') == [text]


@pytest.mark.parametrize("text", ["Return the wheel.", "Whatever is asked.", "Offsets of slices.", "Wholes."])
def test_a_name_is_no_riddle(text: str) -> None:
    assert _riddles(f'"""{text}"""\n') == []
