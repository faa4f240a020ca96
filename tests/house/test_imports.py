import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.repository import ROOT

#: Every package imports those to its left only.
PACKAGES = ("supernet", "fitness", "cache", "training", "search")
#: What builds networks and holds their weights, below training.
NEEDS_TORCH = {f"fedpareto.supernet.{name}" for name in ("network", "weights", "nesting", "bn_folding", "tensor_files")}


def _modules(package: str) -> dict[str, Path]:
    """Return the files of a package by the names of their modules."""
    files = sorted((ROOT / package).rglob("*.py"))
    named = {path: path.relative_to(ROOT).with_suffix("").parts for path in files if "bundle" not in path.parts}
    return {"fedpareto." + ".".join(parts).removesuffix(".__init__"): path for path, parts in named.items()}


def _imported(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (name for name in names if name.split(".")[0] == "fedpareto")


def _first_to_load(modules: list[str], unwanted: list[str]) -> str:
    """Import the modules in turn in a fresh process; return the first that brings an unwanted one along."""
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = [bad for bad in {unwanted!r} if bad in sys.modules]\n"
        "    if found: sys.exit(f'{name} imports {found}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stderr


def test_nothing_but_networks_and_weights_needs_torch() -> None:
    modules = [name for package in ("supernet", "fitness", "cache") for name in _modules(package)]
    assert _first_to_load([name for name in modules if name not in NEEDS_TORCH], ["torch", "torchvision"]) == ""


@pytest.mark.parametrize(
    "module",
    [
        "fedpareto.search.query.searcher",
        "fedpareto.search.cli",
        "fedpareto.search.export.settings",
        "fedpareto.search.reports.page.page",
        "fedpareto.cache.costs.latency.table",
        "fedpareto.search.profiling.cli",
        "fedpareto.search.comparison.cli",
        "fedpareto.search.ranking.cli",
        "fedpareto.search.recipes.cli",
        "fedpareto.cache.cli",
        "fedpareto.cache.nsga2.solver",
        "fedpareto.cache.exact.frontier_store",
        "fedpareto.cache.exact.solver",
        "fedpareto.cache.exact.infeasible",
    ],
)
def test_the_exact_search_starts_without_heavy_libraries(module: str) -> None:
    assert _first_to_load([module], ["torch", "pymoo", "scipy", "matplotlib", "jinja2"]) == ""


def test_a_space_needs_no_numpy() -> None:
    assert _first_to_load(["fedpareto.supernet.space"], ["numpy", "torch"]) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_below_them(package: str) -> None:
    allowed = (*PACKAGES[: PACKAGES.index(package)], package)
    up = {
        (module, name)
        for module, path in _modules(package).items()
        for name in _imported(path)
        if name != "fedpareto" and name.split(".")[1] not in allowed
    }
    assert not up


def test_everything_is_imported_by_the_one_name() -> None:
    found = {
        (str(path.relative_to(ROOT)), node.module)
        for folder in (*PACKAGES, "fedpareto", "tests", "benchmarks", "examples", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
    }
    assert not found
