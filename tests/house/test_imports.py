import ast
import subprocess
import sys

import pytest
from helpers.repository import ROOT
from helpers.source_imports import imported, modules

#: Every package imports those to its left only.
PACKAGES = ("supernet", "fitness", "cache", "training", "search")
#: Networks and their weights, below training.
NEEDS_TORCH = "fedpareto.supernet.networks"


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
    found = [name for package in ("supernet", "fitness", "cache") for name in modules(package)]
    assert _first_to_load([name for name in found if not name.startswith(NEEDS_TORCH)], ["torch", "torchvision"]) == ""


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
        for module, path in modules(package).items()
        for name in imported(path)
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
