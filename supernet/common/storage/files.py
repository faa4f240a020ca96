"""Atomic writing of files and folders, and checks of output paths before any work is done."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import (
    DIGESTS,
    SIGNATURE,
    check_content,
    digest_of,
    digests_before_replacing,
    digests_text,
    read_digests,
)
from fedpareto.supernet.common.storage.path_checks import (
    check_length,
    check_readable,
    children,
    exists,
    is_file,
    is_folder,
    reaching,
)
from fedpareto.supernet.common.terminal.words import option

#: Beginning of the names of temporary files: only such files are ever swept.
TEMPORARY = ".fedpareto-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block succeeds.

    The temporary file is synced to disk before the rename, and removed if the block fails. If the folder has a digest
    of the file, that changes with it. Temporary files that killed processes have left in the same folder are removed.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    handle: int | None = None
    try:
        make_folders(path.parent)
        sweep(path.parent)
        handle, temporary = _temporary_file(path)
        yield temporary
        give_ordinary_mode(temporary)
        sync(temporary)
        digests = digests_before_replacing(path, temporary)
        if digests is not None:
            write_text(path.parent / DIGESTS, digests)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def replacing_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block succeeds.

    Its files are synced to disk before the rename; it is removed if the block fails. ``path`` may be an empty folder,
    with ``replace`` also one that is not: until the new one has its name the old one lies beside it, and after a kill
    between the two renames ``restore_folder`` gives its name back.

    Raises:
        OSError: the folder cannot be written, another process is writing it, or ``path`` is a folder that is not
            empty.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.tmp")
    if os.path.lexists(temporary) and not remove_if_dead(temporary):
        raise OSError(errno.EBUSY, f"another process is writing it, in {temporary}")
    make_folders(path.parent)
    temporary.mkdir()
    handle = os.open(temporary, os.O_RDONLY)
    try:
        _lock(handle)
        yield temporary
        for file in (temporary, *temporary.rglob("*")):
            sync(file)
        if replace and path.exists():
            restore_folder(path)
            path.rename(_old(path))
            sync(path.parent)
        temporary.rename(path)
        sync(path.parent)
        shutil.rmtree(_old(path), ignore_errors=True)
    finally:
        if replace:
            restore_folder(path)
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def restore_folder(path: Path) -> None:
    """Restore a folder's name if a process was killed while replacing it; else remove the replaced one."""
    if _old(path).is_dir() and not path.exists():
        _old(path).rename(path)
        sync(path.parent)
    shutil.rmtree(_old(path), ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder; those of living ones stay."""
    # What may not be listed was written by somebody else.
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(TEMPORARY):
                remove_if_dead(folder / name)


def remove_if_dead(path: Path) -> bool:
    """Remove a temporary file or folder that no process is writing any more; return True if it was removed.

    A process holds a lock on what it writes, which ends with the process.

    Raises:
        ValueError: the name is none that we give to what is temporary; the working folder is none, above all.
    """
    if not path.name.startswith("."):
        raise ValueError(f"{path} is no temporary file or folder of ours")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _temporary_file(path: Path) -> tuple[int, Path]:
    """Return a new locked file in the folder of ``path`` with the same suffix, from which libraries tell the format."""
    while True:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        _lock(handle)
        # Somebody who sweeps may have come between.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _lock(handle: int) -> None:
    # Where a file system has no locks nothing is ever swept.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def record(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write digests of the files of ``folder`` with the given ``names`` beside them; of all its files when None.

    Digests of other files stay as they are. A file that is written again by ``replacing`` keeps its digest up to date.

    Raises:
        UserError: the folder cannot be written.
        OSError: a file cannot be read.
    """
    chosen = sorted(path.name for path in folder.iterdir() if path.is_file()) if names is None else names
    found = {name: (digest_of(folder / name),) for name in chosen if name not in (DIGESTS, SIGNATURE)}
    write_text(folder / DIGESTS, digests_text({**read_digests(folder), **found}))


def write_recorded(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically (UTF-8), and its digest beside it."""
    if path.name not in read_digests(path.parent):
        write_text(path, text)
        record(path.parent, [path.name])
    else:
        write_text(path, text)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of ``path``.

    Raises:
        UserError: the file is missing or cannot be read, or its folder has another digest of it.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path}: {reason}") from error
    check_content(path, content)
    return content


def read_text(path: Path) -> str:
    """Return the UTF-8 text of ``path``.

    Raises:
        UserError: the file is missing or cannot be read, or its folder has another digest of it.
    """
    check_readable(path)
    try:
        # Some editors put a byte order mark in front, which is no part of the text.
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text; save it as UTF-8") from error


def check_output(path: Path, *, overwrite: bool | None) -> None:
    """Refuse an output file that exists or cannot be written, before any work is done.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or None where a command has no such option; or its
            folder cannot be written.
    """
    if is_folder(path, "write"):
        raise UserError(f"{path} is a folder; name a file in it")
    if exists(path, "write") and not overwrite:
        remedy = "remove it" if overwrite is None else f"pass {option('overwrite')} to replace it"
        raise UserError(f"{path} exists; {remedy}, or choose another output")
    if exists(path, "write") and not is_file(path, "write"):
        raise UserError(f"{path} is no ordinary file; choose another output")
    check_writable(path)


def check_output_folder(path: Path) -> None:
    """Refuse an output folder that is taken or cannot be written, before any work is done.

    Raises:
        UserError: ``path`` exists and is not an empty folder, is the working folder, or its folder cannot be written.
    """
    if exists(path, "write") and (not is_folder(path, "write") or children(path)):
        raise UserError(f"{path} exists and is not an empty folder; choose another {option('output')}")
    if path.resolve() == Path.cwd():
        raise UserError(f"{path} is the folder you are in, which cannot be replaced; choose another {option('output')}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a path of a file or folder that cannot be written, before any work is done.

    Raises:
        UserError: it is too long, or in no folder that may be written to.
    """
    with reaching(path, "write"):
        folder = next(parent for parent in path.absolute().parents if exists(parent))
        check_length(path, folder)
    try:
        # Asked for by writing: what a system allows on paper is not what a file system does.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {folder} is not a folder you may write to") from error


def make_folders(folder: Path) -> None:
    """Make a folder and all that it is in, as far as they are missing; their entries are synced to the disk.

    Raises:
        OSError: one cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync(each.parent)


def give_ordinary_mode(path: Path) -> None:
    """Give a file the permissions of any new file; some libraries write files that only their owner may read."""
    path.chmod(0o666 & ~_umask())


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
