"""Spool of a round's updates: in memory up to a bound, beyond it in files of a temporary folder."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Slices

#: Most bytes of updates in memory.
MEMORY = 1 << 30


@dataclasses.dataclass(frozen=True)
class SpooledUpdate:
    """Update of a client in a spool.

    Attributes:
        slices: slices of the merged tensors that its tensors belong to, by name.
        digest: digest of its tensors.
        values: its tensors in the host's memory, or the safetensors file that holds them.
    """

    slices: Mapping[str, Slices]
    digest: bytes
    values: Tensors | Path

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of one of its tensors, in the host's memory.

        Raises:
            UserError: the file cannot be read any more.
        """
        if not isinstance(self.values, Path):
            return self.values[name][start:stop]
        try:
            with safe_open(self.values, framework="pt") as file:
                rows: Tensor = file.get_slice(name)[start:stop]
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read an update of the round again from {self.values}: {error}") from error
        return rows


class Spool:
    """Spool of the updates of one round, which are read again tensor by tensor.

    It holds up to ``memory`` bytes in the host's memory, wherever the tensors were. What comes after that lies as one
    safetensors file for each update in a folder of its own under the system's temporary folder (TMPDIR), readable by
    this user alone, until the spool is cleared or the process ends.

    Args:
        memory: most bytes of updates in memory.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory, self._held = memory, 0
        self._updates: list[SpooledUpdate] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, slices: Mapping[str, Slices], tensors: Mapping[str, Tensor]) -> None:
        """Copy an update's ``tensors``, one for each of the ``slices``.

        Raises:
            UserError: it does not fit into memory, and the temporary folder cannot hold it.
        """
        # Rows are read one after another, and files hold nothing but contiguous tensors.
        copies = {
            name: tensors[name].detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for name in slices
        }
        size = sum(copy.nbytes for copy in copies.values())
        digest = _digest(copies)
        if self._held + size <= self._memory:
            self._held += size
            self._updates.append(SpooledUpdate(slices, digest, copies))
        else:
            self._updates.append(SpooledUpdate(slices, digest, self._written(copies)))

    def ordered(self) -> list[SpooledUpdate]:
        """Updates in an order that does not depend on that of their arrival; equal ones cannot be told apart."""
        return sorted(self._updates, key=lambda update: update.digest)

    def clear(self) -> None:
        """Forget all updates, and remove their files."""
        self._updates.clear()
        self._held = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _written(self, tensors: Tensors) -> Path:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fedpareto-updates-")
            path = Path(self._folder.name) / f"{len(self._updates)}.safetensors"
            save_file(tensors, path)
        except (OSError, SafetensorError) as error:
            raise no_room(error) from error
        return path


def no_room(error: Exception) -> UserError:
    """Error of an update that the temporary folder cannot hold."""
    return UserError(
        f"the temporary folder {tempfile.gettempdir()} cannot hold an update of the round ({error}): make room there, "
        "or name another one by TMPDIR"
    )


def _digest(tensors: Tensors) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.digest()
