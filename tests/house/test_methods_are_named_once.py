"""Methods are known by what they say of themselves: no other file of the package names one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.repository import ROOT

from fedpareto.training.config.methods.registry import BUILT_IN

_NAMES = tuple(spec.name for spec in BUILT_IN)

#: Where methods are.
_OWN = ("training/methods/", "training/config/methods/")

#: Which may name which all the same: the static type of a configuration has a group for each method of this package,
#: and one of them is the default; networks that studies train alone are trained by federated averaging.
_MAY = {
    "training/config/run.py": _NAMES,
    "search/comparison/studies/yardsticks.py": ("fedavg",),
}

#: One method has the name of the package: what is about the method is a setting of it, or a comparison.
_PACKAGE = "fedpareto"
_OTHERS = re.compile(rf"\b({'|'.join(name for name in _NAMES if name != _PACKAGE)})\b")
_SETTING = re.compile(rf"\b{_PACKAGE}\.(?:{'|'.join(BUILT_IN[0].setting_names)})\b|^{_PACKAGE}\.$|--{_PACKAGE}\.")


def _docstrings(tree: ast.AST) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    expressions = (node.body[0] for node in ast.walk(tree) if isinstance(node, holders) and node.body)
    return {id(first.value) for first in expressions if isinstance(first, ast.Expr)}


def _named(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a program that name a method, and which."""
    tree = ast.parse(text)
    told = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _NAMES:
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg in _NAMES:
            yield node.value.lineno, str(node.arg)
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")[1:]
            yield from ((node.lineno, part) for part in parts if part in _NAMES)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield from ((node.lineno, found) for found in _OTHERS.findall(node.value))
            if _SETTING.search(node.value):
                yield node.lineno, _PACKAGE
        elif isinstance(node, ast.Compare | ast.Dict):
            beside = [node.left, *node.comparators] if isinstance(node, ast.Compare) else node.keys
            listed = [each for one in beside for each in (one.elts if isinstance(one, ast.Tuple | ast.List) else [one])]
            if any(isinstance(each, ast.Constant) and each.value == _PACKAGE for each in listed):
                yield node.lineno, _PACKAGE


def _files() -> Iterator[Path]:
    for folder in ("supernet", "fitness", "cache", "training", "search"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted((ROOT / "benchmarks").glob("gpu*.py"))


def test_no_other_file_names_a_method() -> None:
    found = {
        f"{place}:{line} names {name}"
        for path in _files()
        if not (place := str(path.relative_to(ROOT))).startswith(_OWN)
        for line, name in _named(path.read_text(encoding="utf-8"))
        if name not in _MAY.get(place, ())
    }
    assert found == set()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("if config.method == 'fedpareto': pass", "fedpareto"),
        ("if config.method in ('fedpareto', x): pass", "fedpareto"),
        ("if config.method == 'decnas': pass", "decnas"),
        ("x = {'fedpareto': 1.0}", "fedpareto"),
        ("x = config.cotrain", "cotrain"),
        ("x = config.fedpareto.power_first", "fedpareto"),
        ("x = RunConfig(dfnas=DfnasConfig())", "dfnas"),
        ("x = '--fedavg.architecture'", "fedavg"),
        ("x = 'fedpareto.nested_start'", "fedpareto"),
        ("x = ('client.', 'fedpareto.')", "fedpareto"),
        ("from fedpareto.training.methods.decnas.accounting import print_accounting", "decnas"),
    ],
)
def test_the_search_for_names_finds_them(text: str, name: str) -> None:
    assert [found for _, found in _named(text)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "'''As deepfednas does.'''",
        "x = version('fedpareto')",
        "from fedpareto.training.cli import main",
        "x = 'fedpareto-cache'",
    ],
)
def test_the_search_for_names_finds_nothing_else(text: str) -> None:
    assert list(_named(text)) == []
