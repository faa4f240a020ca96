"""Signatures of a run's checkpoints, each of which signs for the run's own files, too."""

import dataclasses
from pathlib import Path

from fedpareto.supernet.common.provenance import PROVENANCE
from fedpareto.supernet.common.storage.digests import digest_of
from fedpareto.supernet.common.storage.files import read_text, record, write_text
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.storage.signatures import SigningKey, VerifyKey, check_signed, sign_folder

_KIND = "checkpoint"


@dataclasses.dataclass(frozen=True)
class CheckpointSigner:
    """Signer of the checkpoints of a run.

    Attributes:
        key: the private key.
        files: names of the run's files that are never written again and that a checkpoint signs for, such as its space.
        folders: names of its folders of such files.
    """

    key: SigningKey
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()

    def sign(self, folder: Path, run: Path) -> None:
        """Sign a checkpoint that is being written in ``folder``, with the lasting files of its run.

        The run's provenance is copied into it, as that goes on while the run does.

        Raises:
            UserError: a file cannot be read or written.
            OSError: likewise.
        """
        if exists(run / PROVENANCE):
            write_text(folder / PROVENANCE, read_text(run / PROVENANCE))
        record(folder)
        names = [*self.files, *(f"{name}/{path.name}" for name in self.folders for path in _files(run / name))]
        sign_folder(folder, _KIND, self.key, {name: digest_of(run / name) for name in names})


def check_checkpoint_signed(folder: Path, trusted: VerifyKey | None) -> None:
    """Refuse a checkpoint whose signature does not fit, or that ``trusted`` has not signed with its run's files.

    Raises:
        SignatureError: naming the file and what is wrong with it.
        DamagedError: a file has changed or is missing.
    """
    check_signed(folder, _KIND, trusted, folder.parent.parent)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
