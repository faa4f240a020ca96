"""Folder of a run: its files, which are created together or not at all, and the lock of the process that writes it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedpareto.cache.cache_file import Cache, read_cache, write_cache
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.common.storage.digests import DIGESTS, check_folder, has_digests
from fedpareto.supernet.common.storage.files import check_output_folder, read_text, record, replacing_folder, write_text
from fedpareto.supernet.common.storage.path_checks import exists, is_file, is_folder, reaching
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.words import command, option
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_from_mapping, space_to_yaml
from fedpareto.training.config.inputs import relocated
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.rules.changes import (
    RESUME_MAY_ADAPT,
    RESUME_MAY_EXTEND,
    changed_fields,
    with_former_statistics,
)
from fedpareto.training.config.run import RunConfig, check_unedited, config_to_mapping, write_config
from fedpareto.training.data.images import Normalisation
from fedpareto.training.data.split import Census, Split
from fedpareto.training.privacy.key import read_key, write_key
from fedpareto.training.privacy.ledger import RELEASES, Ledger, new_ledger, read_ledger
from fedpareto.training.runs.checkpoint import CHECKPOINTS, newest_checkpoint, read_checkpoint_config

CONFIG = "config.yaml"
SPACE = "space.yaml"
CACHE = "cache.jsonl"
SPLIT = "partition.json"
METRICS = "metrics.jsonl"

#: Of clients that the data name.
FEDERATION_TABLE, FEDERATION_PICTURE = "federation.csv", "federation.png"

NOISE_KEY = "noise.key"
LOCK = ".lock"

#: What a run that searches has found, and what it has found for every client.
ARCHITECTURES = "architectures.jsonl"


class RunError(UserError):
    """Error of a run folder that is taken, incomplete, or of another program."""


def create_run(
    folder: Path,
    config: RunConfig,
    space: SearchSpace,
    cache: Cache,
    split: Split | Census,
    first_checkpoint: Callable[[Path], object],
    inputs: Mapping[str, str | bytes],
) -> None:
    """Write a new run's files and its first checkpoint; the folder appears when it is complete.

    ``inputs`` are the contents of further files by their names in the run.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        with replacing_folder(folder) as temporary:
            write_config(temporary / CONFIG, config)
            write_text(temporary / SPACE, space_to_yaml(space))
            write_cache(temporary / CACHE, cache)
            write_text(temporary / SPLIT, json.dumps(dataclasses.asdict(split) | _salt(config)))
            for name, text in inputs.items():
                if isinstance(text, str):
                    write_text(temporary / name, text)
                else:
                    (temporary / name).write_bytes(text)
            if config.privacy.noise:
                write_key(temporary / NOISE_KEY)
            for part in [temporary, *(path for path in temporary.rglob("*") if path.is_dir())]:
                record(part)
            if config.privacy.noise:
                # Lines are added to it, which it has digests of its own for.
                key, name = read_key(temporary / NOISE_KEY), secrets.token_hex(16)
                new_ledger(temporary / RELEASES, key, name, config.clients.count)
            # Checkpoints have digests of their own.
            first_checkpoint(temporary)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror or error}") from error


def _salt(config: RunConfig) -> dict[str, str]:
    """Random field of the split's file in a run that withholds clients' statistics; none in others.

    The file's digest is in provenance and signatures, which are handed on. Without it, whoever guesses a client's
    images could see there that the guess is right.
    """
    return {"salt": secrets.token_hex(32)} if config.privacy.withheld else {}


def check_new_run(folder: Path) -> None:
    """Refuse an output folder that is taken.

    Raises:
        RunError: it holds a run (offers ``--resume``), which may be in training.
        UserError: it is not empty, or cannot be written.
    """
    if is_folder(folder, "write") and exists(folder / CONFIG):
        if _is_locked(folder):
            raise RunError(trained_already(folder))
        raise RunError(
            f"{folder} already holds a run; choose another {option('output')}, or go on with: "
            f"{command('train-supernet', resume=folder)}"
        )
    check_output_folder(folder)


def check_run(folder: Path) -> None:
    """Refuse a folder that holds no run, or one of which a file was altered since it was written.

    Raises:
        RunError: a file of a run is missing.
        DamagedError: a file of a run was altered.
    """
    check_holds_run(folder)
    if not has_digests(folder):
        stderr.print(
            f"{folder} has no {DIGESTS}: an earlier version wrote it, and damage to its files may go unnoticed"
        )
    check_unedited(folder / CONFIG)
    for part in _parts(folder):
        # Whoever reads a file that is gone will say so; what a method tells of its search is not needed to go on.
        check_folder(part, complete=False)


def check_holds_run(folder: Path) -> None:
    """Refuse a folder that lacks a file of a run; the files themselves are not looked at.

    Raises:
        RunError: a file is missing; the message names it, and the run that ``folder`` is a part of, if any.
    """
    reason = _lacking(folder)
    if reason is not None:
        raise RunError(f"{folder} holds no run: {reason}")


def check_own_output(output: str | Path | None, folder: Path) -> None:
    """Refuse to resume the run in ``folder`` with an output elsewhere, however either of them is spelled.

    Raises:
        RunError: naming both.
    """
    if output and Path(output).resolve() != folder.resolve():
        raise RunError(
            f"output is {output}, but a resumed run goes on in its own folder {folder}; leave output out, or move the "
            "folder"
        )


def holds_run(folder: Path) -> bool:
    """Return True if a folder holds all files of a run."""
    return _missing(folder) is None


def check_outside_runs(path: Path) -> None:
    """Refuse an output in the folder of a run, whose files are those of the run alone.

    Raises:
        RunError: the path lies in one; the message names it.
    """
    with reaching(path, "write"):
        place = path.resolve()
    around = next((parent for parent in (place, *place.parents) if holds_run(parent)), None)
    if around is not None:
        raise RunError(f"{path} lies in the run {around}, whose folder holds its own files alone; choose another place")


def _lacking(folder: Path) -> str | None:
    """Return the reason why a folder holds no run; None if it holds one."""
    missing = _missing(folder)
    if missing is None:
        return None
    reason = "it is a file" if exists(folder) else "there is no such folder"
    if is_folder(folder):
        reason = f"{folder / missing} is missing"
    around = next((parent for parent in folder.parents if holds_run(parent)), None)
    return reason if around is None else f"{reason}; it is a part of the run {around}"


def _missing(folder: Path) -> str | None:
    return next((name for name in (CONFIG, SPACE, CACHE, SPLIT) if not is_file(folder / name)), None)


def read_space(folder: Path) -> SearchSpace:
    """Return the search space of a run, with the classes of its data.

    Raises:
        UserError: the file is damaged.
    """
    return space_from_mapping(read_yaml_mapping(folder / SPACE), str(folder / SPACE))


def read_run_cache(folder: Path, space: SearchSpace) -> Cache:
    """Return the verified cache of a run.

    Raises:
        CacheError: it is damaged, or not of the run's space.
    """
    return read_cache(folder / CACHE, space)


def read_run_config(folder: Path) -> RunConfig:
    """Return the configuration of a run, with the paths of its file copies as they are now.

    Raises:
        UserError: the file is damaged, or is not the one the run was trained with.
    """
    path = folder / CONFIG
    written = read_yaml_mapping(path)
    config = with_former_statistics(from_mapping(config_type(), written, str(path)), written)
    if not has_digests(folder):
        _check_trained_with(path, config, read_checkpoint_config(newest_checkpoint(folder)))
    return relocated(config, config.output, folder)


def read_classes(folder: Path) -> tuple[str, ...]:
    """Return the class names of a run, whose images are here or with clients.

    Raises:
        RunError: the file is damaged.
    """
    return _split_fields(folder).texts("classes")


def read_split(folder: Path) -> Split:
    """Return the split of a run's images.

    Raises:
        UserError: the file is damaged.
    """
    fields = _split_fields(folder)
    return Split(
        digest=fields.text("digest"),
        classes=fields.texts("classes"),
        validation=list(fields.wholes("validation")),
        clients=[list(members) for members in fields.lists_of_wholes("clients")],
        normalisation=_normalisation(fields.within("normalisation")),
        measured=fields.text("measured") if fields.has("measured") else None,
    )


def read_census(folder: Path) -> Census:
    """Return the census of a run: its connected clients' description of their images.

    Raises:
        UserError: the file is damaged.
    """
    fields = _split_fields(folder)
    return Census(
        classes=fields.texts("classes"),
        normalisation=_normalisation(fields.within("normalisation")),
        examples=fields.wholes("examples"),
        validation=fields.wholes("validation"),
    )


def check_trained_with(folder: Path, trained: Mapping[str, Any]) -> None:
    """Refuse a run whose ``config.yaml`` differs from a checkpoint's in settings that a resumed run may not change.

    Raises:
        UserError: naming the setting; or the file is damaged.
    """
    path = folder / CONFIG
    _check_trained_with(path, from_mapping(config_type(), read_yaml_mapping(path), str(path)), trained)


def _check_trained_with(path: Path, config: RunConfig, trained: Mapping[str, Any]) -> None:
    """Refuse a configuration that differs from a checkpoint's in settings that a resumed run may not change."""
    for name, old, new in changed_fields(trained, config_to_mapping(config)):
        if not name.startswith((*RESUME_MAY_ADAPT, *RESUME_MAY_EXTEND)):
            raise RunError(f"{path}: {name} is {new}, but the run was trained with {old}; restore it")


def _split_fields(folder: Path) -> Fields:
    path = str(folder / SPLIT)
    return fields_of(parse_json(read_text(folder / SPLIT), path, RunError), path, RunError)


def _normalisation(statistics: Fields) -> Normalisation:
    return Normalisation(statistics.numbers("mean"), statistics.numbers("std", 0))


def _parts(folder: Path) -> list[Path]:
    """Return a run's folder and its folders with files of its own: not its checkpoints, and not wandb's."""
    inner = (path for path in folder.rglob("*") if path.is_dir() and has_digests(path))
    return [folder, *(path for path in sorted(inner) if path.relative_to(folder).parts[0] != CHECKPOINTS)]


def open_ledger(folder: Path) -> Ledger:
    """Open the ledger of a private run, with its secret.

    Raises:
        UserError: the key or the ledger is missing, damaged, or open to others; with another key, rounds that are
            repeated would leak.
    """
    return read_ledger(folder / RELEASES, read_key(folder / NOISE_KEY))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock, so that two processes never write one run; a killed process loses it.

    Raises:
        RunError: another process holds it, or it cannot be opened.
    """
    descriptor = _open_lock(folder / LOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is training {folder}; wait for it or stop it first") from error
        except OSError as error:
            raise RunError(f"cannot lock {folder / LOCK}: {error.strerror or error}") from error
        yield
    finally:
        os.close(descriptor)


def trained_already(folder: Path) -> str:
    """Words for a place at which another session makes or trains a run."""
    return f"a run is being trained in {folder} already; wait for it, or choose another output"


def _is_locked(folder: Path) -> bool:
    if not is_file(folder / LOCK):
        return False
    descriptor = _open_lock(folder / LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # Where a file system has no locks nobody can tell.
        return False
    finally:
        os.close(descriptor)
    return False


def _open_lock(path: Path) -> int:
    """Open the file that is locked, or make an empty one; nothing is ever written to it, and no link followed.

    Raises:
        RunError: it is no file, or may not be opened.
    """
    try:
        # Without O_NONBLOCK a pipe of that name would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise RunError(_not_a_lock(path)) from error
        raise RunError(f"cannot open {path}, which keeps two processes apart: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(_not_a_lock(path))
    return descriptor


def _not_a_lock(path: Path) -> str:
    return f"{path} must be an empty file that keeps two processes apart, and is something else; remove it"
