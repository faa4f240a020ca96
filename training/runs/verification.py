"""Verification of a run by its maker's public key, before anything of it is loaded."""

from pathlib import Path
from typing import Literal

from fedpareto.supernet.common.storage.signatures import SignatureError, VerifyKey
from fedpareto.training.runs.checkpoint import (
    best_checkpoint,
    checkpoint_folder,
    newest_checkpoint,
    read_checkpoint_config,
    read_checkpoint_round,
)
from fedpareto.training.runs.folder import check_holds_run, check_trained_with
from fedpareto.training.runs.signing import check_checkpoint_signed


def verify_run(folder: Path, which: Literal["best", "newest"], trusted: VerifyKey | None) -> None:
    """Refuse a run that ``trusted`` has not signed: the checkpoint that is used, the newest, and its own files.

    The newest checkpoint says which one is the best. The configuration may say what a resumed run may change.

    Args:
        folder: of the run.
        which: checkpoint that is used.
        trusted: key that must have signed; None where nothing need be signed.

    Raises:
        SignatureError: naming the file and what is wrong with it.
        UserError: the folder holds no run, or a file is damaged.
    """
    if trusted is None:
        return
    check_holds_run(folder)
    verify_checkpoint(newest_checkpoint(folder), trusted)
    if which == "best":
        verify_checkpoint(best_checkpoint(folder), trusted)


def verify_checkpoint(checkpoint: Path, trusted: VerifyKey | None) -> None:
    """Refuse a checkpoint that ``trusted`` has not signed, with its run's own files.

    Raises:
        SignatureError: naming the file and what is wrong with it.
        UserError: a file is damaged.
    """
    if trusted is None:
        return
    check_checkpoint_signed(checkpoint, trusted)
    run = checkpoint.parent.parent
    number = read_checkpoint_round(checkpoint)
    if checkpoint_folder(run, number).name != checkpoint.name:
        raise SignatureError(f"{checkpoint} was signed as the checkpoint of round {number}; its folder is another's")
    check_trained_with(run, read_checkpoint_config(checkpoint))
