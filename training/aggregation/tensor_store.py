"""Store of updates' tensors: in memory up to a bound, beyond it in files of a temporary folder."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors

#: Tensors in the host's memory, or the safetensors file that holds them.
Stored = Tensors | Path


class TensorStore:
    """Store of the tensors of updates.

    It holds up to ``memory`` bytes in the host's memory, wherever the tensors were. What comes after that lies as one
    safetensors file for each update in a folder of its own under the system's temporary folder (TMPDIR), readable by
    this user alone, until the store is cleared or the process ends.

    Args:
        memory: most bytes of tensors in memory.
    """

    def __init__(self, memory: int) -> None:
        self._memory, self._held, self._files = memory, 0, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def keep(self, copies: Tensors) -> Stored:
        """Keep the tensors of an update, copied by ``copied``; return where they are.

        Raises:
            UserError: they do not fit into memory, and the temporary folder cannot hold them.
        """
        size = sum(copy.nbytes for copy in copies.values())
        if self._held + size <= self._memory:
            self._held += size
            return copies
        return self._written(copies)

    def clear(self) -> None:
        """Forget all tensors, and remove their files."""
        self._held = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _written(self, tensors: Tensors) -> Path:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fedpareto-updates-")
            self._files += 1
            path = Path(self._folder.name) / f"{self._files}.safetensors"
            save_file(tensors, path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the temporary folder {tempfile.gettempdir()} cannot hold an update of the round ({error}): make room "
                "there, or name another one by TMPDIR"
            ) from error
        return path


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies of an update's tensors in the host's memory: engines reuse that of their answers, and a GPU's is scarce.

    Rows are read one after another, and files hold nothing but contiguous tensors.
    """
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def read_rows(stored: Stored, name: str, start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` of a stored tensor, in the host's memory.

    Raises:
        UserError: the file cannot be read any more.
    """
    if not isinstance(stored, Path):
        return stored[name][start:stop]
    with _readable(stored), safe_open(stored, framework="pt") as file:
        rows: Tensor = file.get_slice(name)[start:stop]
    return rows


def read_all(stored: Stored) -> Tensors:
    """All tensors of an update, in the host's memory.

    Raises:
        UserError: the file cannot be read any more.
    """
    if not isinstance(stored, Path):
        return stored
    with _readable(stored):
        tensors: Tensors = load_file(stored)
    return tensors


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read an update of the round again from {path}: {error}") from error
