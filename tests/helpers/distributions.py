"""Packages of other people, as they lie in a folder once they are installed."""

from collections.abc import Mapping
from pathlib import Path


def write_distribution(
    folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str] | None = None
) -> Path:
    """Write a distribution of version 1.0 into ``folder``; return the folder, which is to be on the path.

    Args:
        folder: may hold other distributions.
        name: of the distribution.
        entry_points: references by their names, by group.
        modules: text of each file.
    """
    for file, text in (modules or {}).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    told = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = []
    for group, references in entry_points.items():
        lines += [f"[{group}]", *(f"{entry} = {reference}" for entry, reference in references.items())]
    (told / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
