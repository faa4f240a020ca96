"""Reader of search spaces: the presets that come with the package, and the user's own YAML files."""

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import SpaceError, UserError, unknown_name
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.fitness_settings import settings_to_mapping
from fedpareto.supernet.space import SearchSpace


def preset_names() -> list[str]:
    """Return the names of the spaces that come with the package."""
    folder = resources.files("fedpareto.supernet.presets")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@checked
def load_space(name: str | Path, classes: int | None = None) -> SearchSpace:
    """Load a search space: a preset by name, or a YAML file by path, with its own or another number of classes.

    Raises:
        SpaceError: there is no such preset or file, or the file describes no space.

    >>> import fedpareto as fp
    >>> fp.load_space("mobilenet-tiny", classes=7).classes
    7
    """
    space = _find_space(str(name))
    return space if classes is None else space.adapted(classes=classes)


def space_of(space: SearchSpace | str | Path, classes: int | None = None) -> SearchSpace:
    """Search space that was given as such, by a preset's name or as a YAML file.

    Raises:
        SpaceError: there is no such preset or file, or the file describes no space.
    """
    if not isinstance(space, SearchSpace):
        return load_space(str(space), classes)
    return space if classes is None else space.adapted(classes=classes)


def _find_space(name: str) -> SearchSpace:
    path = Path(name)
    if name in preset_names():
        with resources.as_file(resources.files("fedpareto.supernet.presets") / f"{name}.yaml") as preset:
            return _read_space(preset, name)
    if path.suffix in (".yaml", ".yml"):
        return _read_space(path, name)
    raise SpaceError(f"{unknown_name('space', name, preset_names())}, or the path of a .yaml file")


def space_from_mapping(mapping: dict[str, Any], source: str) -> SearchSpace:
    """Build the space from a mapping of its fields; ``source`` names it in errors.

    Raises:
        SpaceError: a field is unknown, missing, of another type, or makes no network.
    """
    try:
        return from_mapping(SearchSpace, mapping, source)
    except UserError as error:
        raise SpaceError(str(error)) from error


def space_to_mapping(space: SearchSpace) -> dict[str, Any]:
    """Return the fields of ``space`` as plain JSON/YAML values; the inverse of ``space_from_mapping``."""
    mapping: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(space)))
    return {**mapping, "fitness": settings_to_mapping(space.fitness)}


def space_to_yaml(space: SearchSpace) -> str:
    """Text of a YAML file of ``space``."""
    return yaml.safe_dump(space_to_mapping(space), sort_keys=False)


def _read_space(path: Path, source: str) -> SearchSpace:
    try:
        mapping = read_yaml_mapping(path)
    except UserError as error:
        raise SpaceError(str(error)) from error
    return space_from_mapping(mapping, source)
