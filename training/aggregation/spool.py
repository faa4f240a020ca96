"""Spool of a round's updates, which are read again tensor by tensor."""

import dataclasses
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Slices
from fedpareto.training.aggregation.tensor_store import Stored, TensorStore, copied, read_rows

#: Most bytes of updates in memory.
MEMORY = 1 << 30


@dataclasses.dataclass(frozen=True)
class SpooledUpdate:
    """Update of a client in a spool.

    Attributes:
        slices: slices of the merged tensors that its tensors belong to, by name.
        digest: digest of its tensors.
        values: its tensors, wherever they are.
    """

    slices: Mapping[str, Slices]
    digest: bytes
    values: Stored

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of one of its tensors, in the host's memory.

        Raises:
            UserError: the file cannot be read any more.
        """
        return read_rows(self.values, name, start, stop)


class Spool:
    """Spool of the updates of one round, which are read again tensor by tensor.

    Args:
        memory: most bytes of updates in memory; the others are in files until the spool is cleared (``TensorStore``).
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._store = TensorStore(memory)
        self._updates: list[SpooledUpdate] = []

    def add(self, slices: Mapping[str, Slices], tensors: Mapping[str, Tensor]) -> None:
        """Copy an update's ``tensors``, one for each of the ``slices``.

        Raises:
            UserError: it does not fit into memory, and the temporary folder cannot hold it.
        """
        copies = copied({name: tensors[name] for name in slices})
        digest = _digest(copies)
        self._updates.append(SpooledUpdate(slices, digest, self._store.keep(copies)))

    def ordered(self) -> list[SpooledUpdate]:
        """Updates in an order that does not depend on that of their arrival; equal ones cannot be told apart."""
        return sorted(self._updates, key=lambda update: update.digest)

    def clear(self) -> None:
        """Forget all updates, and remove their files."""
        self._updates.clear()
        self._store.clear()


def _digest(tensors: Tensors) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.digest()
