"""Checks of a study's settings: each is read by some method, and no two methods are the same computation."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.training.config.rules.coincidence import coincides, normal_form
from fedpareto.training.config.rules.unused_settings import unread, unread_words
from fedpareto.training.config.run import RunConfig


def check_read(path: Path, configs: Mapping[str, RunConfig], own: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a method's own setting that it does not read, and a common one that no method reads.

    Args:
        path: file of the study.
        configs: configurations of every method, with the common settings.
        own: settings of every method alone.

    Raises:
        UserError: there is one; it names it, and what would read it.
    """
    ignored = {label: unread(config) for label, config in configs.items()}
    for label, settings in ignored.items():
        for name, value in settings.items():
            if _has(own[label], name):
                raise UserError(f"{path}: methods.{label}: {unread_words(name, value, configs[label])}; leave it out")
    first = next(iter(configs))
    for name, value in ignored[first].items():
        if all(name in settings for settings in ignored.values()):
            raise UserError(
                f"{path}: run: {unread_words(name, value, configs[first])}, as would all others; leave it out"
            )


def check_distinct(path: Path, configs: Mapping[str, RunConfig]) -> None:
    """Refuse two methods that are the same computation.

    Raises:
        UserError: there are two; it names both and says why.
    """
    for (one, first), (other, second) in itertools.combinations(configs.items(), 2):
        entries = _entries(first)
        if normal_form(first, entries) != normal_form(second, entries):
            continue
        why = "their settings differ in nothing that changes the result"
        if first.method != second.method or (entries or 3) < 3:
            why = coincides(first) or f"a cache of {entries} leaves nothing that tells them apart"
        raise UserError(
            f"{path}: methods {one} and {other} would compute the same ({why}); change one, or leave it out"
        )


def _entries(config: RunConfig) -> int | None:
    """Return the number of entries of the cache file that a run names; None if it is built or cannot be read yet."""
    if config.cache is None or not is_file(Path(config.cache)):
        return None
    return max(0, len([line for line in read_text(Path(config.cache)).splitlines() if line.strip()]) - 1)


def _has(settings: Mapping[str, Any], name: str) -> bool:
    """Return True if nested settings hold the one with a full, dotted name."""
    group, _, field = name.rpartition(".")
    inner = settings.get(group, {}) if group else settings
    return isinstance(inner, Mapping) and field in inner
