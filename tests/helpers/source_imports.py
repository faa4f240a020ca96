"""What files of ours import of ours, read from their text."""

import ast
from collections.abc import Iterator
from pathlib import Path

from helpers.repository import ROOT


def modules(package: str) -> dict[str, Path]:
    """Files of a package, or of a folder in it, by the names of their modules; none that another program loads."""
    files = sorted((ROOT / package).rglob("*.py"))
    named = {path: path.relative_to(ROOT).with_suffix("").parts for path in files if "bundle" not in path.parts}
    return {"fedpareto." + ".".join(parts).removesuffix(".__init__"): path for path, parts in named.items()}


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports anywhere in it, in functions too.

    Of ``from a import b`` come ``a`` and ``a.b``, as ``b`` may be a module.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: modules are imported by their whole name"
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] == "fedpareto")
