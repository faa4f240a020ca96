"""A program run where only some packages are installed: all others are hidden."""

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.repository import ROOT

BENCHMARKS = ROOT / "benchmarks"

#: What a machine has on which torch is installed and nothing else of ours.
BARE = ("torch", "torchvision", "numpy", "safetensors", "pyyaml")

_HIDING = """
import sys
from importlib.machinery import PathFinder
class Hiding:
    hidden = frozenset({hidden!r})
    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in self.hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding() if finder is PathFinder else finder for finder in sys.meta_path]
sys.path[:0] = {folders!r}
"""


def listed_wheels() -> list[str]:
    """Return the names of the packages that the benchmark of a GPU needs besides."""
    lines = (BENCHMARKS / "gpu-requirements.txt").read_text().splitlines()
    return [name_of(line) for line in lines if line and not line.startswith("#")]


def name_of(requirement: str) -> str:
    """Return the normalised name of what a requirement asks for."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def with_needs(names: Sequence[str]) -> set[str]:
    """Return packages with all that they need, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [name_of(need) for need in needs if "extra ==" not in need]
    return found


def other_modules(allowed: set[str]) -> list[str]:
    """Return the top-level modules of all installed packages but the ``allowed``."""
    return sorted(
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not {name_of(package) for package in packages} & allowed
    )


def run_bare(program: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program in ``folder`` with torch, the listed wheels and the repository, and nothing else."""
    # Of a wheel only itself: what it may need besides is listed, or is not needed.
    allowed = with_needs(BARE) | set(listed_wheels()) | {"fedpareto"}
    prologue = _HIDING.format(hidden=other_modules(allowed), folders=[str(BENCHMARKS), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", prologue + program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
