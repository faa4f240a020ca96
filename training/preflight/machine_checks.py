"""Checks of the machine: versions of packages, room on the disk and in memory."""

import importlib.metadata
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.machine import available_memory
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.training.preflight.findings import Finding

#: Packages that a site and a server need, with the extra that brings each.
_NEEDED = (("fedpareto", ""), ("torch", ""), ("numpy", ""), ("flwr", "flower"), ("cryptography", "flower"))

#: Packages that make rounds faster.
_FAST = (("numba", "fast"),)

#: Bytes that a process takes beside networks and images: Python, torch and Flower.
PROCESS = 800 * 10**6

#: Bytes that stay free on a disk for logs and what else runs there.
_HEADROOM = 500 * 10**6

_PART = re.compile(r"(>=|<)\s*(\d+)\.(\d+)")


def versions() -> Iterator[Finding]:
    """Yield a finding for each package: its version, and whether this program goes with it."""
    yield Finding("python", platform.python_version())
    wanted = _requirements()
    for name, extra in (*_NEEDED, *_FAST):
        version = _version(name)
        install = f"pip install 'fedpareto{f'[{extra}]' if extra else ''}'"
        if version is None:
            optional = (name, extra) in _FAST
            yield Finding(name, "not installed", "warning" if optional else "failed", install)
        elif not _within(version, wanted.get(name, "")):
            yield Finding(name, f"{version}; needed: {wanted[name]}", "failed", install)
        else:
            yield Finding(name, version)


def disk(what: str, folder: Path, needed: int) -> Finding:
    """Check that a folder can be written, and that its disk has room for ``needed`` bytes and some more."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if exists(parent))
    remedy = "free space there, or name a folder on a larger disk"
    try:
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return Finding(
            what, f"cannot write in {place}: {error.strerror or error}", "failed", f"{remedy}; or mend its mode"
        )
    found = f"{format_bytes(free)} free at {place}, {format_bytes(needed)} needed"
    if free <= needed:
        return Finding(what, found, "failed", remedy)
    if free < needed + _HEADROOM:
        return Finding(what, found, "warning", remedy)
    return Finding(what, found)


def memory(what: str, needed: int, remedy: str) -> Finding:
    """Check that ``needed`` bytes of memory are available, with those that a process takes by itself."""
    needed += PROCESS
    available = available_memory()
    if available is None:
        return Finding(what, f"{format_bytes(needed)} needed; this system does not say what it has")
    found = f"{format_bytes(available)} available, {format_bytes(needed)} needed"
    if available < needed:
        return Finding(what, found, "failed", remedy)
    return Finding(what, found, "warning", remedy) if available < needed * 5 // 4 else Finding(what, found)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, str]:
    """Return the versions that the installed package needs, such as ``<1.42,>=1.41``, by name."""
    try:
        lines = importlib.metadata.requires("fedpareto") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = [re.match(r"([A-Za-z0-9-]+)(?:\[[^]]*\])?\s*([^;]*)", line) for line in lines]
    return {each[1]: each[2].strip() for each in found if each is not None and each[2].strip()}


def _within(version: str, wanted: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return True
    ours = (int(numbers[1]), int(numbers[2]))
    bounds = [(sign, (int(major), int(minor))) for sign, major, minor in _PART.findall(wanted)]
    return all(ours >= bound if sign == ">=" else ours < bound for sign, bound in bounds)
