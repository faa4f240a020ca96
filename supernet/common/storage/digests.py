"""Digests of the files of a folder, kept in a file beside them, so that a single flipped bit is found.

``digests.json`` names files of its own folder, each with the SHA-256 of its content. While a file is being replaced it
has two digests, the old and the new: a process killed in between leaves a folder that still passes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.formats.json_text import parse_json

DIGESTS = "digests.json"

#: Signs the digests, where a folder is signed; it has no digest itself.
SIGNATURE = "signature.json"

FORMAT, VERSION = "fedpareto-digests", 1


class DamagedError(UserError):
    """A file has changed since it was written, or is missing although its digest is there.

    Attributes:
        path: the file.
        reason: the damage, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason}); restore it as it was written, from a copy")
        self.path, self.reason = path, reason


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_digests(folder: Path) -> bool:
    """Return True if a folder has digests of its files."""
    try:
        return (folder / DIGESTS).exists()
    except OSError:
        return False


def read_digests(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read the digests that each named file of a folder may have; none where the folder has no digests of ours.

    Raises:
        DamagedError: they cannot be read.
        UserError: they are of another version.
    """
    path = folder / DIGESTS
    if not has_digests(folder):
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"), DIGESTS)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            # Somebody else's file of that name. Who needs digests misses them.
            return {}
        fields = fields_of(content, DIGESTS)
        files = fields.within("files")
        found = {name: files.texts(name) for name in files.values}
        version = fields.whole("version")
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise DamagedError(path, _reason(error)) from error
    if version != VERSION:
        raise UserError(f"{path} has version {version}; this program reads {VERSION}")
    return found


def digests_text(digests: Mapping[str, Sequence[str]]) -> str:
    """Return the text of ``digests.json``."""
    files = {name: list(allowed) for name, allowed in digests.items()}
    return json.dumps({"format": FORMAT, "version": VERSION, "files": files}, indent=1) + "\n"


def check_content(path: Path, content: bytes) -> None:
    """Refuse content read from a file if its folder has another digest of it.

    Raises:
        DamagedError: the digest does not fit, or the digests cannot be read.
    """
    allowed = read_digests(path.parent).get(path.name)
    if allowed is not None and hashlib.sha256(content).hexdigest() not in allowed:
        raise DamagedError(path, "its digest does not fit")


def check_file(path: Path) -> None:
    """Refuse a file, which may be large, if its folder has another digest of it.

    Raises:
        DamagedError: the digest does not fit, the file cannot be read, or the digests cannot.
    """
    allowed = read_digests(path.parent).get(path.name)
    if allowed is not None:
        _check(path, allowed)


def check_folder(folder: Path, *, complete: bool) -> None:
    """Refuse a folder if any file that has a digest was changed or, where it must be ``complete``, is missing.

    Raises:
        DamagedError: naming the first such file.
    """
    for name, allowed in read_digests(folder).items():
        if complete or (folder / name).exists():
            _check(folder / name, allowed)


def digests_before_replacing(path: Path, replacement: Path) -> str | None:
    """Return the text that ``digests.json`` must have before ``replacement`` takes the place of ``path``.

    None if it need not change: the folder has no digests, they do not name the file, or it stays as it is.
    """
    digests = read_digests(path.parent)
    if path.name not in digests:
        return None
    new = digest_of(replacement)
    present = digest_of(path) if path.is_file() else None
    allowed = tuple(digest for digest in digests[path.name] if digest == present != new)
    wanted = (*allowed, new)
    return None if wanted == digests[path.name] else digests_text({**digests, path.name: wanted})


def _check(path: Path, allowed: Sequence[str]) -> None:
    try:
        found = digest_of(path)
    except (OSError, ValueError) as error:
        raise DamagedError(path, _reason(error)) from error
    if found not in allowed:
        raise DamagedError(path, "its digest does not fit")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
