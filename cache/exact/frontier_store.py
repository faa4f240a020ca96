"""Store of frontiers in the user's cache folder, so that only the first search of a space computes its frontier.

A file is trusted for its genes alone: reading one scores the networks again and compares.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedpareto.cache.exact.frontier import Frontier, exact_frontier, frontier_of
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.storage.cache_folder import VARIABLE, kept_file
from fedpareto.supernet.common.storage.files import replacing
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping
from fedpareto.supernet.space import SearchSpace

VERSION = 1

#: Fitness recomputed on another machine's arithmetic is equal to this relative tolerance.
_RELATIVE = 1e-9


class KeptFrontierError(UserError):
    """A stored frontier that is damaged or of another version."""


def kept_path(space: SearchSpace, fitness: FitnessSettings) -> Path:
    """Return the path of a frontier's file, which only this space with these weights uses."""
    identity = json.dumps([space.fingerprint, _weights(fitness)], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return kept_file("frontiers", space.name, digest, ".safetensors")


def load_or_compute_frontier(
    space: SearchSpace, fitness: FitnessSettings, listener: ProgressListener = SILENT
) -> Frontier:
    """Return the stored frontier, or compute and store it; ``listener`` is told if a stored one is of no use.

    Two processes may do so at once, as files are replaced whole.

    Raises:
        SpaceTooLargeError: the space is too large to be solved.
    """
    try:
        path = kept_path(space, fitness)
        if exists(path):
            return read_frontier(path, space, fitness)
    except KeptFrontierError as error:
        listener.remark(f"{error}; computing it again")
    except UserError as error:
        listener.remark(f"{error}; the frontier is not kept")
        return exact_frontier(space, fitness, listener=listener)
    frontier = exact_frontier(space, fitness, listener=listener)
    try:
        write_frontier(path, frontier)
    except UserError as error:
        listener.remark(f"{error}; the frontier is not kept (choose a folder with {VARIABLE})")
    return frontier


def write_frontier(path: Path, frontier: Frontier) -> None:
    """Write a frontier, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {"genes": frontier.genes.astype(np.uint16), "macs": frontier.macs, "fitness": frontier.values}
    metadata = {"version": str(VERSION), "space": frontier.space.name, "digest": _digest(arrays)}
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata)


def read_frontier(path: Path, space: SearchSpace, fitness: FitnessSettings) -> Frontier:
    """Read a stored frontier, scoring its networks again.

    Raises:
        KeptFrontierError: it is cut short, of another version, or its figures are not those of its networks.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            version = metadata.get("version")
            if version != str(VERSION):
                raise KeptFrontierError(f"the kept frontier {path} is of version {version}, not {VERSION}")
            arrays = {name: file.get_tensor(name) for name in ("genes", "macs", "fitness")}
        if metadata.get("digest") != _digest(arrays):
            raise KeptFrontierError(f"the kept frontier {path} is damaged (its digest does not fit)")
        frontier = frontier_of(space, fitness, arrays["genes"].astype(np.int64))
    except (OSError, SafetensorError, ArchitectureError, TypeError) as error:
        raise KeptFrontierError(f"the kept frontier {path} is damaged ({error})") from error
    if len(frontier.macs) != len(arrays["macs"]) or not (
        np.array_equal(frontier.macs, arrays["macs"])
        and np.allclose(frontier.values, arrays["fitness"], rtol=_RELATIVE, atol=0)
    ):
        raise KeptFrontierError(f"the kept frontier {path} has figures that are not those of its networks")
    return frontier


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _weights(fitness: FitnessSettings) -> dict[str, object]:
    """Return the fitness settings that the frontier depends on."""
    weights = settings_to_mapping(fitness)
    del weights["cache_max_effectiveness"]
    return weights
