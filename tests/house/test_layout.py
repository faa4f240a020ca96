"""Where files lie: how many in a folder, and which rooms of a package depend on which."""

import pytest
from helpers.repository import ROOT
from helpers.source_imports import imported, modules

#: Most Python files of one folder.
_MOST_FILES = 15

#: The rooms of a package, lowest first: a room imports those of lines above its own, and no neighbour.
_ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "training": (
        ("randomness", "shares", "traffic"),
        ("local_objective",),
        ("config",),
        ("kernels",),
        ("execution", "messages"),
        ("data",),
        ("clients", "evaluation", "privacy"),
        ("aggregation", "engines"),
        ("trackers",),
        ("runs",),
        ("methods",),
        ("rounds",),
        ("setup",),
        ("preflight",),
        ("training_result",),
        ("session",),
        ("api", "cli"),
    ),
    "cache": (
        ("costs", "dominance", "entries", "figures"),
        ("cache_file", "exact", "objectives"),
        ("nsga2", "plot"),
        ("build",),
        ("api",),
        ("cli",),
    ),
    "search": (
        ("runtimes", "subnet"),
        ("export",),
        ("query",),
        ("profiling", "reports"),
        ("extraction",),
        ("comparison", "ranking", "trained_run"),
        ("recipes",),
        ("api",),
        ("cli",),
    ),
}

#: What every package and every command uses.
_SHARED = "fedpareto.supernet.common"
_PARENTS = ("fedpareto", "fedpareto.supernet")

#: What plots itself or writes its own page imports what draws it, when it is asked to.
_DRAW_THEMSELVES = {
    "training": set[str](),
    "cache": {"cache/cache_file.py imports cache/plot", "cache/exact/frontier.py imports cache/plot"},
    "search": {"search/query/answering.py imports search/reports"},
}


def _rooms(package: str) -> set[str]:
    """Folders and modules of a package that are not its ``__init__``."""
    found = (ROOT / package).iterdir()
    return {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}


def _room(module: str) -> str:
    """The room that a module of a package lies in; empty for the package itself."""
    return module.split(".")[2] if module.count(".") > 1 else ""


@pytest.mark.parametrize("top", ["fedpareto", "supernet", "fitness", "cache", "training", "search", "tests"])
def test_no_folder_holds_more_files_than_one_takes_in_at_a_glance(top: str) -> None:
    folders = {path.parent for path in (ROOT / top).rglob("*.py")}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    full = {folder: count for folder, count in counts.items() if count > _MOST_FILES}
    assert full == {}


@pytest.mark.parametrize("package", _ORDERS)
def test_every_room_of_a_package_has_a_place_in_its_order(package: str) -> None:
    placed = [room for rooms in _ORDERS[package] for room in rooms]
    assert len(set(placed)) == len(placed)
    assert _rooms(package) <= set(placed)


@pytest.mark.parametrize("package", _ORDERS)
def test_rooms_import_only_those_below_them(package: str) -> None:
    level = {room: place for place, rooms in enumerate(_ORDERS[package]) for room in rooms}
    up = {
        f"{path.relative_to(ROOT)} imports {package}/{_room(name)}"
        for module, path in modules(package).items()
        for name in imported(path)
        if name.split(".")[1] == package and _room(name) in _rooms(package)
        if _room(name) != _room(module) and (not _room(module) or level[_room(name)] >= level[_room(module)])
    }
    assert up == _DRAW_THEMSELVES[package]


def test_what_all_share_imports_nothing_else_of_ours() -> None:
    files = modules("supernet/common").values()
    names = {(str(path.relative_to(ROOT)), name) for path in files for name in imported(path)}
    assert {(path, name) for path, name in names if name not in _PARENTS and not name.startswith(_SHARED)} == set()
