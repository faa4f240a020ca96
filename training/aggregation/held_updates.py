"""Updates that wait for the end of a round, in the order they came."""

import dataclasses
from collections.abc import Iterator

from fedpareto.training.aggregation.tensor_store import Stored, TensorStore, copied, read_all
from fedpareto.training.messages import Update

#: Bytes of updates that are held in memory.
_IN_MEMORY = 1 << 29


class HeldUpdates:
    """Updates that wait, in the order they came; copied, as engines reuse the memory of their answers.

    Args:
        in_memory: bytes that are held in memory; the rest is written to files, one for each update.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._store = TensorStore(in_memory)
        self._held: list[tuple[Update, Stored]] = []

    def keep(self, update: Update) -> None:
        """Hold a copy of an update.

        Raises:
            UserError: it does not fit into memory, and the temporary folder cannot hold it.
        """
        stored = self._store.keep(copied(update.tensors))
        self._held.append((dataclasses.replace(update, tensors={}), stored))

    def taken(self) -> Iterator[Update]:
        """Yield the updates in the order they came, and hold none of them afterwards.

        Raises:
            UserError: a file cannot be read any more.
        """
        held, self._held = self._held, []
        for update, stored in held:
            yield dataclasses.replace(update, tensors=read_all(stored))
        self._store.clear()
