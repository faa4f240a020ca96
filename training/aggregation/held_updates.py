"""Updates that wait for the end of a round: in memory up to a bound, beyond it in files of a temporary folder."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedpareto.training.aggregation.spool import no_room
from fedpareto.training.messages import Update, tensor_bytes

#: Bytes of updates that are held in memory.
_IN_MEMORY = 1 << 29


class HeldUpdates:
    """Updates that wait, in the order they came; copied, as engines reuse the memory of their answers.

    Args:
        in_memory: bytes that are held in memory; the rest is written to files, one for each update.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._left = in_memory
        self._held: list[tuple[Update, Path | None]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def keep(self, update: Update) -> None:
        """Hold a copy of an update.

        Raises:
            UserError: it does not fit into memory, and the temporary folder cannot hold it.
        """
        # Not on a GPU, whose memory is for training; a copy keeps every bit.
        copied = {name: tensor.detach().to("cpu", copy=True) for name, tensor in update.tensors.items()}
        self._left -= tensor_bytes(copied)
        path = None if self._left >= 0 else self._write(copied)
        self._held.append((dataclasses.replace(update, tensors={} if path else copied), path))

    def taken(self) -> Iterator[Update]:
        """Yield the updates in the order they came, and hold none of them afterwards."""
        held, self._held = self._held, []
        for update, path in held:
            self._left += tensor_bytes(update.tensors)
            yield update if path is None else dataclasses.replace(update, tensors=load_file(path))
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _write(self, tensors: Mapping[str, Tensor]) -> Path:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fedpareto-updates-")
            path = Path(self._folder.name) / f"{len(self._held)}.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        except (OSError, SafetensorError) as error:
            raise no_room(error) from error
        return path
