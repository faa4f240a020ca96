"""The file of a Pareto cache: JSON Lines, a header and one entry a line by ascending MACs.

Reading recomputes the costs and the fitness of every entry, and refuses a file that disagrees.
"""

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fedpareto.cache.entries import CacheEntry, make_entries
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, shown, unsealed
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.storage.files import check_output, read_text, write_text
from fedpareto.supernet.common.terminal.words import command, counted, option
from fedpareto.supernet.fitness_settings import FitnessSettings, check_fitness, settings_to_mapping
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace

FORMAT = "fedpareto-cache"
VERSION = 1

#: Fitness is recomputed on another machine's arithmetic: equal to this relative tolerance.
_RELATIVE = 1e-9


class CacheError(UserError):
    """A cache file that cannot be read, belongs to another space, or has altered numbers."""


@dataclasses.dataclass(frozen=True, repr=False)
class Cache:
    """The entries of a Pareto cache, by ascending MACs, and how they were found.

    Attributes:
        space: search space, with its classes.
        entries: at least one entry.
        fitness: weights the fitness was computed with.
        solver: name of the solver.
        solver_settings: its settings, as JSON values.
        gaps: optimality gaps, the highest fitness at each entry's MACs less its own, where that is known.
    """

    space: SearchSpace
    entries: tuple[CacheEntry, ...]
    fitness: FitnessSettings
    solver: str
    solver_settings: Mapping[str, Any]
    gaps: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        first, last = self.entries[0], self.entries[-1]
        gap = "" if self.gaps is None else f", optimality gap {round(max(self.gaps), 3):g}"
        return (
            f"Cache({counted(len(self.entries), 'entry')} of {format_quantity(first.macs)} to "
            f"{format_quantity(last.macs)} MACs, fitness {first.fitness:.1f} to {last.fitness:.1f}, by the "
            f"{self.solver} solver{gap})"
        )

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the cache to a file (JSON Lines), whole or not at all, which ``load_cache`` and commands read.

        Args:
            path: the file.
            overwrite: replace a file that exists.

        Raises:
            UserError: the file exists or cannot be written.

        >>> import fedpareto as fp
        >>> cache = fp.build_cache("mobilenet-tiny", entries=5, solver="exact", progress=False)
        >>> fp.load_cache(cache.save("kept.jsonl"), "mobilenet-tiny") == cache
        True
        """
        file = Path(path)
        check_output(file, overwrite=overwrite)
        write_cache(file, self)
        return file

    def _repr_html_(self) -> str:
        from fedpareto.cache.plot import Fronts, fronts_html  # noqa: PLC0415 - a notebook draws, a command need not

        return fronts_html(repr(self), "Fitness over MACs", Fronts(None, entries=self.entries))


def write_cache(path: Path, cache: Cache) -> None:
    """Write a cache file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    lines = [json.dumps(sealed(_header(cache)))]
    lines += [json.dumps(entry_to_json(entry)) for entry in cache.entries]
    write_text(path, "\n".join(lines) + "\n")


def read_cache(path: Path, space: SearchSpace, remedy: str = "build one with build-cache") -> Cache:
    """Read a cache file of ``space``; ``remedy`` ends the error about a cache of another space.

    Raises:
        CacheError: the file is no cache, is cut short, belongs to another space, or a number in it differs
            from what is recomputed; the message names the line and the field.
        UserError: the file cannot be read.
    """
    text = read_text(path)
    values = [_parse_line(path, number, line) for number, line in enumerate(text.splitlines(), 1)]
    if not values:
        raise CacheError(f"{path} is empty; {remedy}")
    header = _check_header(path, values[0], space, remedy)
    if len(values) == 1:
        raise CacheError(f"{path} holds no entries; build it anew")
    if header["entries"] != len(values) - 1:
        raise CacheError(
            f"{path} is cut short: it announces {shown(header['entries'])} and has {counted(len(values) - 1, 'entry')}"
        )
    settings = _check_settings(path, header, space)
    entries = tuple(
        _check_entry(f"{path}:{number}", value, space, settings) for number, value in enumerate(values[1:], 2)
    )
    if list(entries) != sorted(entries, key=lambda entry: entry.macs):
        raise CacheError(f"{path}: the entries are not ordered by MACs; the file was altered, build it anew")
    gaps = _check_gaps(path, header)
    # What entries have to be was recomputed; the rest of the header has only its digest. Checked last: others say more.
    unsealed(header, f"{path}:1", CacheError)
    return Cache(space, entries, settings, str(header["solver"]), header["solver_settings"], gaps)


def read_cache_of_any_classes(path: Path, space: SearchSpace, remedy: str = "build one with build-cache") -> Cache:
    """Read a cache file of ``space``, whatever the number of classes.

    Raises:
        CacheError: as ``read_cache`` does.
        UserError: the file cannot be read.
    """
    first = read_text(path).partition("\n")[0]
    classes = _parse_line(path, 1, first).get("classes") if first else None
    return read_cache(path, space.adapted(classes=classes) if type(classes) is int and classes > 0 else space, remedy)


def remedy_of(path: Path, named: str, classes: int | None) -> str:
    """Return the end of an error about a cache of another space: the command that builds the right one.

    Args:
        path: file of the wrong cache; the right one is suggested beside it.
        named: the user's name for the wanted space, a preset's name or a file.
        classes: number of classes of the images; None before it is known.
    """
    build = command("build-cache", space=named, classes=classes, output=path.with_name(f"new-{path.name}"))
    unless = "" if classes else f"for images of other classes than the space's add {option('classes')}; "
    return f"{unless}build one with: {build}"


def entry_to_json(entry: CacheEntry) -> dict[str, Any]:
    """Return an entry's JSON object."""
    fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    return {**fields, "architecture": entry.architecture.to_json()}


def _header(cache: Cache) -> dict[str, Any]:
    space = cache.space
    return {
        "format": FORMAT,
        "version": VERSION,
        "space": space.name,
        "fingerprint": space.fingerprint,
        "classes": space.classes,
        "fitness": settings_to_mapping(cache.fitness),
        "solver": cache.solver,
        "solver_settings": dict(cache.solver_settings),
        "entries": len(cache.entries),
        "gaps": None if cache.gaps is None else list(cache.gaps),
        "libraries": {name: metadata.version(name) for name in ("fedpareto", "numpy", "pymoo")},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    value = parse_json(line, f"{path}:{number}", CacheError)
    if not isinstance(value, dict):
        raise CacheError(f"{path}:{number} must be a JSON object, found {type(value).__name__}")
    return value


def _check_header(path: Path, header: dict[str, Any], space: SearchSpace, remedy: str) -> dict[str, Any]:
    if header.get("format") != FORMAT:
        raise CacheError(f'{path} is not a cache file: its first line lacks "format": "{FORMAT}"')
    if header.get("version") != VERSION:
        raise CacheError(
            f"{path} has format version {header.get('version')}; this program reads {VERSION}; build it anew"
        )
    missing = [name for name in ("entries", "fitness", "solver", "solver_settings") if name not in header]
    if missing:
        raise CacheError(f"{path}:1 lacks {', '.join(missing)}; build it anew")
    if header.get("fingerprint") != space.fingerprint:
        raise CacheError(
            f"{path} is a cache of {header.get('space')} (classes: {header.get('classes')}, fingerprint: "
            f"{header.get('fingerprint')}), not of {space.name} (classes: {space.classes}, fingerprint: "
            f"{space.fingerprint}); {remedy}"
        )
    return header


def _check_settings(path: Path, header: dict[str, Any], space: SearchSpace) -> FitnessSettings:
    for name in ("fitness", "solver_settings"):
        if not isinstance(header[name], dict):
            raise CacheError(f"{path}:1: {name} must be a JSON object, found {shown(header[name])}; build it anew")
    try:
        settings = from_mapping(FitnessSettings, header["fitness"], "fitness")
        check_fitness(settings, space)
    except UserError as error:
        raise CacheError(f"{path}:1: {error}") from error
    return settings


def _check_gaps(path: Path, header: dict[str, Any]) -> tuple[float, ...] | None:
    gaps = header.get("gaps")
    if gaps is None:
        return None
    numbers = isinstance(gaps, list) and all(type(gap) in (int, float) and 0 <= gap < math.inf for gap in gaps)
    if not numbers or len(gaps) != header["entries"]:
        raise CacheError(f"{path}:1: gaps must be one number of at least 0 for each entry; build it anew")
    return tuple(gaps)


def _check_entry(where: str, value: dict[str, Any], space: SearchSpace, settings: FitnessSettings) -> CacheEntry:
    try:
        genes = encode(space, architecture_from_json(value.get("architecture")))
    except ArchitectureError as error:
        raise CacheError(f"{where}: {error}") from error
    (entry,) = make_entries(space, genes[None], settings)
    for name, expected in entry_to_json(entry).items():
        if name == "architecture":
            continue
        found = value.get(name)
        same = isinstance(found, int | float) and math.isclose(found, expected, rel_tol=_RELATIVE, abs_tol=0)
        if not same or (isinstance(expected, int) and found != expected):
            raise CacheError(
                f"{where}: {name} is {shown(found)}, recomputed {expected}; the file was altered, build it anew"
            )
    return entry
