"""The files and folders that a configuration names: which a run keeps copies of, and which stay where they are.

A run never needs a file again that was named when it was created: it keeps the text of each, and its configuration
names those copies by absolute paths, so that they mean the same from every working folder. Where a run's folder was
moved as a whole, ``relocated`` finds its copies in the new place.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.cache_file import read_cache
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space, preset_names
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.rules.unused_settings import reads
from fedpareto.training.config.run import RunConfig

#: Folder of a run's copies of files.
COPIES = "inputs"

#: Fields of runs of all methods that name a file which decides what is trained, and the run's own copy of it.
_SHARED: Mapping[str, str] = {
    "space": "space.yaml",
    "cache": "cache.jsonl",
    "fitness": f"{COPIES}/fitness.yaml",
    "clients.file": f"{COPIES}/clients.jsonl",
    "clients.latency_table": f"{COPIES}/latency-table.json",
}

#: Fields that name something outside of the run, which may move while the run stays what it is.
PLACES = ("output", "data.root", "flower.root_certificates", "flower.clients")

#: Fields that say where a run came from; they are never read again.
ORIGINS = ("init",)

#: What ``create_run`` writes from what it has read.
_WRITTEN = ("space", "cache")


def inputs() -> dict[str, str]:
    """Fields that name a file which decides what is trained, each with the run's own copy of it.

    Space and cache are written by ``run_folder.create_run``, with the classes of the data and verified; all others are
    copied as they are.
    """
    of_methods = {
        f"{spec.name}.{setting}": f"{COPIES}/{spec.name}-{setting}".replace("_", "-") + suffix
        for spec in METHODS.everything()
        for setting, suffix in spec.files.items()
    }
    return {**_SHARED, **of_methods}


def check_paths(config: RunConfig) -> None:
    """Refuse empty paths, which would mean the working folder, or that nothing was named.

    Raises:
        UserError: naming the field.
    """
    for name in (*inputs(), *PLACES, *ORIGINS):
        value = named(config, name)
        if value is not None and not value.strip():
            raise UserError(f"{name} is empty, as if a variable was not set; name a path, or leave {name} out")


def named(config: RunConfig, field: str) -> str | None:
    """Return the path in a field such as ``data.root``; None where there is none, or a preset space is named."""
    value: Any = config
    for part in field.split("."):
        # A method that was registered since has no settings here.
        value = getattr(value, part, None)
    return None if field == "space" and value in preset_names() else value


def anchored(config: RunConfig) -> RunConfig:
    """Return ``config`` with the places that the run reads as absolute paths, seen from the working folder."""
    places = {name: value for name in PLACES if (value := named(config, name)) is not None and reads(config, name)}
    return replaced(config, {name: value if is_hub(value) else absolute(value) for name, value in places.items()})


def is_hub(root: str) -> bool:
    """Return True for the name of a dataset on a hub, which is no path; a path made of it has one slash less."""
    return root.startswith("hf:/")


def absolute(path: str | Path) -> str:
    """Return an absolute path, whose links stay links where it has no ``..``, which depends on them."""
    place = Path(path)
    return str(place.resolve() if ".." in place.parts else place.absolute())


def read_inputs(config: RunConfig) -> dict[str, str]:
    """Return the texts of the files to copy, by their names in the run.

    Raises:
        UserError: one cannot be read.
    """
    copied = {name: own for name, own in inputs().items() if name not in _WRITTEN}
    paths = {own: value for name, own in copied.items() if (value := named(config, name)) is not None}
    return {name: read_text(Path(path)) for name, path in paths.items()}


def with_own_inputs(config: RunConfig, folder: Path) -> RunConfig:
    """Return ``config`` naming the copies of the run in ``folder`` in place of the files it names."""
    given = {name: own for name, own in inputs().items() if named(config, name) is not None}
    return replaced(config, {name: absolute(folder / own) for name, own in given.items()})


def with_equal_inputs(config: RunConfig, fields: Iterable[str], folder: Path, space: SearchSpace) -> RunConfig:
    """Return ``config`` with the run's own copy in place of each file that was named again and holds the same.

    Args:
        config: what a run is resumed with.
        fields: those that are not what the run was trained with.
        folder: of the run.
        space: of the run, with the classes of its data.
    """
    paths, own = {name: value for name in fields if (value := named(config, name)) is not None}, inputs()
    same = [name for name, value in paths.items() if _holds_the_same(name, Path(value), folder / own[name], space)]
    return replaced(config, {name: absolute(folder / own[name]) for name in same})


def _holds_the_same(field: str, path: Path, own: Path, space: SearchSpace) -> bool:
    if not (path.is_file() and own.is_file()):
        return False
    if field == "space":
        return load_space(str(path), space.classes) == space
    if field == "cache":
        given, kept = read_cache(path, space), read_cache(own, space)
        return (given.entries, given.fitness) == (kept.entries, kept.fitness)
    return read_text(path) == read_text(own)


def relocated(config: RunConfig, before: str | None, folder: Path) -> RunConfig:
    """Return the configuration of a run with its copies where its ``folder`` is, which once was ``before``."""
    own = {name: inside for name in inputs() if (inside := _inside(named(config, name), before)) is not None}
    return replaced(config, {name: absolute(folder / inside) for name, inside in own.items()})


def portable(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's plain values with a run's own copies as such, wherever its folder is, to be compared."""
    result: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in mapping.items()
    }
    for name in inputs():
        *groups, field = name.split(".")
        group = result
        for each in groups:
            group = group.get(each, {})
        inside = _inside(group.get(field), mapping.get("output"))
        if inside is not None:
            # In words, as a bare name could be that of a file in the working folder.
            group[field] = f"its own {inside}"
    return result


def _inside(path: str | None, folder: str | None) -> Path | None:
    """Path of a file relative to a folder; None where it lies elsewhere."""
    if path is None or folder is None or not Path(path).is_relative_to(folder):
        return None
    return Path(path).relative_to(folder)


def replaced(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return ``config`` with fields such as ``data.root`` replaced."""
    for name, value in changes.items():
        group, _, field = name.rpartition(".")
        inner: Any = dataclasses.replace(getattr(config, group), **{field: value}) if group else value
        change: dict[str, Any] = {group or field: inner}
        config = dataclasses.replace(config, **change)
    return config
