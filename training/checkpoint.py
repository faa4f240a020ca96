"""Checkpoints: the supernet and the state of a run, written whole or not at all, the best one kept."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from supernet.architecture import Architecture, architecture_from_json
from supernet.errors import UserError
from supernet.files import read_text, replacing_folder
from supernet.slices import supernet_architecture, tensor_shapes
from supernet.space import SearchSpace
from supernet.weights import Tensors
from training.curriculum import Counts
from training.models import Branch

VERSION = 1
SUPERNET = "supernet.safetensors"
SERVER = "server.safetensors"
STATE = "state.json"


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read."""


@dataclasses.dataclass(frozen=True)
class Best:
    """The evaluated round with the highest mean accuracy of the probes on validation images."""

    round: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a run was when what its configuration schedules began: rounds and compute count from here."""

    round: int = 0
    compute: int = 0


@dataclasses.dataclass(frozen=True)
class RunState:
    """Everything that a run carries from one round to the next, tensors aside.

    Attributes:
        round: rounds done.
        counts: how often every client had the smallest and the largest network.
        trained: how often every cache entry was trained.
        failures: failed updates by kind.
        best: the best evaluated round so far.
        bytes_up: bytes the clients have sent, for evaluations too.
        bytes_down: bytes the clients were sent, likewise.
        wandb_id: the wandb run that mirrors this one.
        exposure: of every client in a private run, see ``accountant.py``; empty in others and before the first round.
        compute: multiply–accumulates of all forward passes that clients have trained with so far.
        method: what the method keeps, as JSON values.
        origin: where the scheduled training began; None while a search precedes it.
    """

    round: int
    counts: Counts
    trained: tuple[int, ...]
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    best: Best | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    wandb_id: str | None = None
    exposure: tuple[float, ...] = ()
    compute: int = 0
    method: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: Origin | None = Origin()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        state: the run's state.
        config: the run's configuration as plain values.
        tensors: the supernet.
        velocity: the server's momentum, if it has one.
        branches: networks that train beside the supernet, by name.
    """

    state: RunState
    config: Mapping[str, Any]
    tensors: Tensors
    velocity: Tensors | None
    branches: Mapping[str, Branch] = dataclasses.field(default_factory=dict)


def checkpoint_folder(run: Path, round_number: int) -> Path:
    """Return the folder of a round's checkpoint."""
    return run / "checkpoints" / f"round-{round_number:06d}"


def branch_file(name: str) -> str:
    """Return the name of the file that holds a branch's tensors."""
    return f"branch-{name}.safetensors"


def save_checkpoint(
    run: Path,
    state: RunState,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    velocity: Mapping[str, Tensor] | None,
    branches: Mapping[str, Branch] | None = None,
) -> Path:
    """Write the checkpoint of ``state.round`` under a temporary name, sync it and rename it.

    Raises:
        CheckpointError: it cannot be written, for instance because the disk is full; no partial checkpoint
            stays behind and earlier ones are untouched.
    """
    folder = checkpoint_folder(run, state.round)
    beside = branches or {}
    body = {
        "version": VERSION,
        "state": dataclasses.asdict(state),
        "config": config,
        "branches": {name: branch.architecture.to_json() for name, branch in beside.items()},
    }
    try:
        with replacing_folder(folder) as temporary:
            save_file(_contiguous(tensors), temporary / SUPERNET)
            if velocity is not None:
                save_file(_contiguous(velocity), temporary / SERVER)
            for name, branch in beside.items():
                save_file(_contiguous(branch.tensors), temporary / branch_file(name))
            (temporary / STATE).write_text(json.dumps(body), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_cannot_write(run, folder, error)) from error
    return folder


def prune_checkpoints(run: Path, keep: int, best: Best | None) -> None:
    """Remove all checkpoints but the newest ``keep`` and the best."""
    folders = _folders(run)
    kept = set(folders[-keep:])
    if best is not None:
        kept.add(checkpoint_folder(run, best.round))
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def newest_checkpoint(run: Path) -> Path:
    """Return the folder of the newest checkpoint of a run.

    Raises:
        CheckpointError: the run has none.
    """
    folders = _folders(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet; start it anew with another --output")
    return folders[-1]


def best_checkpoint(run: Path) -> Path:
    """Return the folder of the best checkpoint by validation accuracy, or the newest if none was evaluated.

    Raises:
        CheckpointError: the run has no checkpoint, or the newest is damaged.
    """
    newest = newest_checkpoint(run)
    best = _read_state(newest).state.best
    if best is None:
        return newest
    return checkpoint_folder(run, best.round)


def load_checkpoint(folder: Path, space: SearchSpace) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: a file is missing, cut short, or holds tensors of another space.
    """
    body, whole = _read_state(folder), supernet_architecture(space)
    tensors = _read_tensors(folder, SUPERNET, space, whole)
    velocity = _read_tensors(folder, SERVER, space, whole) if (folder / SERVER).exists() else None
    branches = {
        name: Branch(architecture, _read_tensors(folder, branch_file(name), space, architecture))
        for name, architecture in body.branches.items()
    }
    return Checkpoint(body.state, body.config, tensors, velocity, branches)


class _Body(NamedTuple):
    state: RunState
    config: Mapping[str, Any]
    branches: Mapping[str, Architecture]


def _contiguous(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("round-*"))


def _read_state(folder: Path) -> _Body:
    try:
        body = json.loads(read_text(folder / STATE))
        fields = body["state"]
        fields["counts"] = Counts(*(tuple(fields["counts"][name]) for name in ("smallest", "largest")))
        fields["trained"] = tuple(fields["trained"])
        # Checkpoints from before there was privacy have none.
        fields["exposure"] = tuple(fields.get("exposure", ()))
        fields["best"] = fields["best"] and Best(**fields["best"])
        # Nor, from before there were searches, an origin and branches.
        fields["origin"] = _origin(fields.get("origin", {}))
        branches = {name: architecture_from_json(value) for name, value in body.get("branches", {}).items()}
        if body["version"] != VERSION:
            raise CheckpointError(f"{folder} has version {body['version']}; this program reads {VERSION}")
        return _Body(RunState(**fields), body["config"], branches)
    except CheckpointError:
        raise
    except (UserError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(_damaged(folder, STATE)) from error


def _origin(fields: Mapping[str, Any] | None) -> Origin | None:
    return None if fields is None else Origin(**fields)


def _read_tensors(folder: Path, name: str, space: SearchSpace, architecture: Architecture) -> Tensors:
    if not (folder / name).exists():
        raise CheckpointError(_damaged(folder, name))
    try:
        tensors = load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged(folder, name)) from error
    expected = tensor_shapes(space, architecture)
    if {key: tuple(tensor.shape) for key, tensor in tensors.items()} != dict(expected):
        what = "the supernet of another space than" if name in (SUPERNET, SERVER) else "another network of"
        raise CheckpointError(f"{folder / name} holds {what} {space.name}")
    return {key: tensors[key] for key in expected}


def _damaged(folder: Path, name: str) -> str:
    return (
        f"checkpoint {folder} is damaged: {name} is missing or cut short; remove that folder to resume from the "
        "checkpoint before it"
    )


def _cannot_write(run: Path, folder: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    good = _folders(run)
    kept = f"the last good checkpoint is {good[-1]}; free space, then resume from it" if good else "free space"
    return f"cannot write checkpoint {folder}: {reason}; {kept}"
