import subprocess
import sys

import pytest

NUMPY_ONLY = [
    *(f"supernet.{name}" for name in ("errors", "files", "probes", "streams", "units", "typed_yaml", "space")),
    *(f"supernet.{name}" for name in ("architecture", "layouts", "genes", "layers", "slices", "console")),
    *(f"supernet.{name}" for name in ("yaml_text", "typed_values", "command_line", "kept", "room", "learned")),
    *(f"fitness.{name}" for name in ("blocks", "costs", "learned", "score", "report", "settings", "cli")),
    *(f"cache.{name}" for name in ("entries", "limits", "problem", "operators", "nsga2", "build", "file")),
    *(f"cache.{name}" for name in ("plot", "cli", "objectives", "sampling", "local_search", "progress")),
    *(f"cache.{name}" for name in ("additive", "dominance", "labels", "outlook", "relaxation", "pruning", "exact")),
    *(f"cache.{name}" for name in ("frontier", "kept", "infeasible")),
]


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
    assert _first_to_load(NUMPY_ONLY, ["torch", "torchvision"]) == ""


@pytest.mark.parametrize(
    "module",
    [
        "search.searcher",
        "search.cli",
        "search.export.settings",
        "search.page.page",
        "cache.latency.table",
        "search.latency.cli",
        "search.comparison.cli",
        "search.ranking.cli",
        "search.recipes.cli",
        "cache.cli",
        "cache.nsga2",
        "cache.kept",
        "cache.exact",
        "cache.infeasible",
    ],
)
def test_the_exact_search_starts_without_heavy_libraries(module: str) -> None:
    assert _first_to_load([module], ["torch", "pymoo", "scipy", "matplotlib", "jinja2"]) == ""


def test_a_space_needs_no_numpy() -> None:
    assert _first_to_load(["supernet.space"], ["numpy", "torch"]) == ""


@pytest.mark.parametrize(
    ("package", "above"),
    [("supernet", ["fitness", "cache", "training", "search"]), ("fitness", ["cache", "training", "search"])],
)
def test_packages_import_only_those_below_them(package: str, above: list[str]) -> None:
    modules = [name for name in NUMPY_ONLY if name.startswith(package)]
    if package == "supernet":
        modules += ["supernet.network", "supernet.weights"]
    assert _first_to_load(modules, above) == ""


def test_the_cache_imports_neither_training_nor_search() -> None:
    modules = [name for name in NUMPY_ONLY if name.startswith("cache")]
    assert _first_to_load(modules, ["training", "search"]) == ""
