"""Pixels that are not in memory: they are read as they are asked for, ahead of who trains on them."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from fedpareto.training.execution.device import sent

#: Bytes of pixels that are read at once where all of them are looked at in turn.
_PART = 1 << 25

#: Batches that are read before they are asked for.
_AHEAD = 2

_CPU = torch.device("cpu")


class PixelSource(Protocol):
    """Source of the pixels of many images, of one shape; several threads may read at once."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, channels, side, side)."""

    @property
    def scanned(self) -> bool:
        """True if looking at every image costs little; else whoever measures all of them looks at some."""

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return the pixels of the images at ``positions``, (n, channels, side, side) uint8 in memory.

        Raises:
            UserError: one cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class StoredPixels:
    """Images of a source, in an order of their own; what is indexed is read, and nothing else.

    Attributes:
        source: where the pixels are.
        positions: (N,) int64, the place of every image in the source.
        device: device that the pixels are sent to when they are read.
    """

    source: PixelSource
    positions: Tensor
    device: torch.device = _CPU

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        if isinstance(chosen, Tensor):
            chosen = chosen.cpu()
        return sent(self.source.read(self.positions[chosen].tolist()), self.device)

    def __iter__(self) -> Iterator[Tensor]:
        for part in self.parts():
            yield from part

    @property
    def shape(self) -> torch.Size:
        """(N, channels, side, side)."""
        return torch.Size((len(self), *self.source.shape[1:]))

    def subset(self, chosen: Tensor) -> "StoredPixels":
        """Return the images at ``chosen``; none is read."""
        return dataclasses.replace(self, positions=self.positions[chosen.cpu()])

    def to(self, device: torch.device) -> "StoredPixels":
        """Return the same images, which are sent to ``device`` when they are read."""
        return dataclasses.replace(self, device=device)

    def parts(self) -> Iterator[Tensor]:
        """Yield all pixels in order, a bounded number of images at a time."""
        channels, height, width = self.source.shape[1:]
        size = max(1, _PART // (channels * height * width))
        yield from read_ahead(self, torch.split(torch.arange(len(self)), size))


def stored(source: PixelSource) -> StoredPixels:
    """Return all images of a source, in its order."""
    return StoredPixels(source, torch.arange(source.shape[0]))


def parts_of(images: Tensor | StoredPixels) -> Iterator[Tensor]:
    """Yield all pixels in order: at once where they are in memory, else a bounded number of images at a time."""
    if isinstance(images, StoredPixels):
        return images.parts()
    return iter((images,))


def read_ahead(images: Tensor | StoredPixels, batches: Sequence[Tensor | slice]) -> Iterator[Tensor]:
    """Yield the pixels of batches, each of some positions; of stored ones the next are read while the last is used."""
    if isinstance(images, Tensor):
        for chosen in batches:
            yield images[chosen]
        return
    waiting: deque[Future[Tensor]] = deque()
    left = iter(batches)
    with ThreadPoolExecutor(1, "read ahead") as pool:
        try:
            for chosen in left:
                waiting.append(pool.submit(images.__getitem__, chosen))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
