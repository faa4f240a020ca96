"""Encoded images: files stay as they are on the disk, and each batch is decoded when it is asked for."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.stores.decoders import Decoders


class EncodedFiles:
    """Source of pixels that decodes the files that are asked for, in processes of its own.

    Args:
        paths: the files.
        preparation: form of all images.
        decoders: number of processes.
    """

    #: Every look at all images decodes them all.
    scanned = False

    def __init__(self, paths: Sequence[Path], preparation: Preparation, decoders: int) -> None:
        self._paths, self._preparation = paths, preparation
        self._decoders = Decoders(preparation, decoders)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, channels, side, side)."""
        side, channels = self._preparation.side, self._preparation.channels
        return len(self._paths), channels, side, side

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return the pixels of the images at ``positions``, (n, channels, side, side) uint8.

        Raises:
            DataError: one cannot be decoded; the message names it.
            UserError: a process that decodes ended.
        """
        return self._decoders.read([self._paths[position] for position in positions])
