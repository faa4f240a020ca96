"""Checkpoints of a run: its weights and its state after a round, written whole or not at all; the best one is kept."""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS, DamagedError, check_folder, has_digests, read_digests
from fedpareto.supernet.common.storage.files import (
    give_ordinary_mode,
    record,
    remove_if_dead,
    replacing_folder,
    restore_folder,
    sync,
)
from fedpareto.supernet.common.storage.signatures import SignatureError
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.tensor_files import read_tensors
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.runs.models import Branch, Models
from fedpareto.training.runs.signing import CheckpointSigner, check_checkpoint_signed
from fedpareto.training.runs.state import VERSION, WITHOUT_DIGESTS, Best, Body, RunState, body_to_json, read_body

CHECKPOINTS = "checkpoints"
SUPERNET = "supernet.safetensors"
SERVER = "server.safetensors"
STATE = "state.json"

#: A checkpoint's name, and that of what a killed process has left of one.
_NAME = re.compile(r"round-[0-9]{6}|round-[1-9][0-9]{6,}")
_LEFT = re.compile(rf"\.(?P<name>{_NAME.pattern})\.(?P<kind>tmp|old)")


class CheckpointError(UserError):
    """Error of a checkpoint that cannot be written or read."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Checkpoint that was read.

    Attributes:
        state: the run's state.
        config: the run's configuration as plain values.
        models: all weights of the run.
    """

    state: RunState
    config: Mapping[str, Any]
    models: Models


def checkpoint_folder(run: Path, round_number: int) -> Path:
    """Return the folder of a round's checkpoint."""
    return run / CHECKPOINTS / f"round-{round_number:06d}"


def branch_file(name: str) -> str:
    """Return the name of the file that holds a branch's tensors."""
    return f"branch-{name}.safetensors"


def save_checkpoint(
    run: Path, state: RunState, config: Mapping[str, Any], models: Models, signer: CheckpointSigner | None = None
) -> Path:
    """Write the checkpoint of ``state.round`` under a temporary name, sync it and rename it; ``signer`` signs it.

    Raises:
        CheckpointError: it cannot be written, for instance because the disk is full; no partial checkpoint
            stays behind and earlier ones are untouched.
    """
    folder = checkpoint_folder(run, state.round)
    body = Body(VERSION, state, config, {name: branch.architecture for name, branch in models.branches.items()})
    try:
        with replacing_folder(folder, replace=True) as temporary:
            _save(models.supernet, temporary / SUPERNET)
            if models.velocity is not None:
                _save(models.velocity, temporary / SERVER)
            for name, branch in models.branches.items():
                _save(branch.tensors, temporary / branch_file(name))
            (temporary / STATE).write_text(json.dumps(body_to_json(body)), encoding="utf-8")
            record(temporary)
            if signer is not None:
                signer.sign(temporary, run)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_cannot_write(run, folder, error)) from error
    return folder


def _save(tensors: Tensors, path: Path) -> None:
    save_file(_contiguous(tensors), path)
    # What is read by its owner only, beside files that all may read, would be a secret; it is none.
    give_ordinary_mode(path)


def prune_checkpoints(run: Path, keep: int, best: Best | None) -> None:
    """Remove all checkpoints but the newest ``keep`` and the best; one that cannot be removed stays."""
    folders = _folders(run)
    kept = set(folders[-keep:])
    if best is not None:
        kept.add(checkpoint_folder(run, best.round))
    for folder in folders:
        # A link is somebody's own doing.
        if folder not in kept and not folder.is_symlink():
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; if the process is killed no half of it stays under its name."""
    dying = folder.with_name(f".{folder.name}.tmp")
    with contextlib.suppress(OSError):
        folder.rename(dying)
        sync(folder.parent)
        shutil.rmtree(dying)


def tidy_checkpoints(run: Path) -> None:
    """Remove partial checkpoints that killed processes have left, and rename one that was being replaced back.

    The caller holds the run's lock.
    """
    parent = run / CHECKPOINTS
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        left = _LEFT.fullmatch(path.name)
        if left is None:
            continue
        if left["kind"] == "old":
            restore_folder(parent / left["name"])
        else:
            remove_if_dead(path)


def newest_checkpoint(run: Path) -> Path:
    """Return the folder of the newest checkpoint of a run.

    Raises:
        CheckpointError: the run has none.
    """
    folders = _folders(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet; start it anew with another {option('output')}")
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
        CheckpointError: a file is missing, cut short or altered, or holds tensors of another space.
    """
    _check_signature(folder)
    body, whole = _read_state(folder), supernet_architecture(space)
    _check_digests(folder, body)
    try:
        expected, what = tensor_shapes(space, whole), f"the supernet of {space.name}"
        tensors = read_tensors(folder / SUPERNET, expected, what)
        velocity = read_tensors(folder / SERVER, expected, what) if _has_momentum(folder, body) else None
        branches = {name: _read_branch(folder, name, space, one) for name, one in body.branches.items()}
    except UserError as error:
        raise _damaged(folder, error) from error
    return Checkpoint(body.state, body.config, Models(tensors, velocity, branches))


def read_checkpoint_config(folder: Path) -> Mapping[str, Any]:
    """Return the configuration that a checkpoint holds, as plain values.

    Raises:
        CheckpointError: its state is damaged.
    """
    return _read_state(folder).config


def read_checkpoint_round(folder: Path) -> int:
    """Return the round that a checkpoint is of.

    Raises:
        CheckpointError: its state is damaged.
    """
    return _read_state(folder).state.round


def _read_branch(folder: Path, name: str, space: SearchSpace, architecture: Architecture) -> Branch:
    shapes = tensor_shapes(space, architecture)
    return Branch(architecture, read_tensors(folder / branch_file(name), shapes, f"the branch {name} of {space.name}"))


def _check_signature(folder: Path) -> None:
    """Refuse a checkpoint whose signature, if it has one, does not fit its files."""
    try:
        check_checkpoint_signed(folder, None)
    except (SignatureError, DamagedError) as error:
        raise _damaged(folder, error) from error


def _check_digests(folder: Path, body: Body) -> None:
    """Refuse a checkpoint of which a file was altered; one of an earlier version has no digests to tell that by."""
    if body.version == WITHOUT_DIGESTS and not has_digests(folder):
        return
    try:
        check_folder(folder, complete=True)
        named = read_digests(folder)
    except UserError as error:
        raise _damaged(folder, error) from error
    for path in sorted(folder.iterdir()):
        if path.name not in named and (path.name == STATE or path.suffix == ".safetensors"):
            raise _damaged(folder, UserError(f"{DIGESTS} has no digest of {path.name}"))


def _has_momentum(folder: Path, body: Body) -> bool:
    server = body.config.get("server")
    return (folder / SERVER).exists() or (isinstance(server, Mapping) and bool(server.get("momentum")))


def _contiguous(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _folders(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, the newest last; other folders there are left out."""
    parent = run / CHECKPOINTS
    found = [path for path in parent.glob("round-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("round-")))


def _read_state(folder: Path) -> Body:
    try:
        return read_body(folder / STATE)
    except UserError as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: UserError) -> CheckpointError:
    what = f"{error.path.name}: {error.reason}" if isinstance(error, DamagedError) else str(error)
    earlier = [other for other in _folders(folder.parent.parent) if other.name < folder.name]
    remedy = "restore it from a copy, or train anew"
    if earlier:
        remedy = f"remove that folder to resume from the checkpoint before it, {earlier[-1].name}"
    return CheckpointError(f"checkpoint {folder} is damaged ({what.replace(f'{folder}/', '')}); {remedy}")


def _cannot_write(run: Path, folder: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    good = _folders(run)
    kept = f"the last good checkpoint is {good[-1]}; free space, then resume from it" if good else "free space"
    return f"cannot write checkpoint {folder}: {reason}; {kept}"
