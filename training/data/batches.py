"""Batches of images for a network: augmented, normalised and resized to the architecture's resolution."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.data.augment import Augmentation, augment
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.data.mix import mix
from fedpareto.training.data.stores.stored import read_ahead
from fedpareto.training.execution.device import sent

#: Of the float32 images of batches that are made together on a GPU.
_BYTES_AT_ONCE = 32 * 2**20


def batch_of(size: int, images: int) -> int:
    """Images of a batch of a client: ``size``, or all of its ``images`` where it has fewer."""
    return min(size, images) if images else size


@dataclasses.dataclass(frozen=True)
class Batches:
    """Recipe for training batches: their size, augmentation, normalisation and memory format.

    Attributes:
        size: number of images of a batch.
        augmentation: random changes of the images.
        normalisation: mean and deviation that pixels are normalised with.
        classes: number of classes of the labels.
        memory_format: memory format of the batches.
    """

    size: int
    augmentation: Augmentation
    normalisation: Normalisation
    classes: int
    memory_format: torch.memory_format = torch.channels_last

    def epoch(
        self, data: ImageSet, resolution: int, generator: torch.Generator, at_once: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of (images, labels) in random order; the images that fill no batch are left out.

        Fewer images than a batch are one batch, of so many.

        Images are float32 (size, channels, resolution, resolution), labels int64 (size,), or with mixup or cutmix the
        float32 shares of the classes (size, classes). All is computed on the device of the data, ``at_once`` batches
        together; by default as many as are fast there.
        """
        order = sent(torch.randperm(len(data), generator=generator), data.images.device)
        size = batch_of(self.size, len(data))
        many = size * (at_once or self._at_once(data, resolution))
        whole = order[: len(data) // size * size]
        pieces = torch.split(whole, many) if len(whole) else ()
        for chosen, found in zip(pieces, read_ahead(data.images, pieces), strict=True):
            images = augment(found, self.augmentation, generator, size)
            prepared = prepare(images, resolution, self.normalisation, self.memory_format)
            labels = data.labels[chosen]
            if self.augmentation.mixes:
                prepared, labels = mix(prepared, labels, self.classes, self.augmentation, generator)
            yield from zip(torch.split(prepared, size), torch.split(labels, size), strict=True)

    def _at_once(self, data: ImageSet, resolution: int) -> int:
        """Return the number of batches that are made together: many on a GPU, where small kernels would slow a step.

        A CPU keeps one batch in its caches. Whole batches share the draws of RandAugment and of mixing.
        """
        if data.images.device.type != "cuda" or self.augmentation.randaugment or self.augmentation.mixes:
            return 1
        channels, side = data.images.shape[1], max(resolution, data.images.shape[-1])
        return max(1, _BYTES_AT_ONCE // (4 * self.size * channels * side**2))

    def empty(self, resolution: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return zeros with the shapes of one batch: images and labels as ``epoch`` yields them."""
        images = torch.zeros(self.size, len(self.normalisation.mean), resolution, resolution, device=device)
        shape = (self.size, self.classes) if self.augmentation.mixes else (self.size,)
        dtype = torch.float32 if self.augmentation.mixes else torch.int64
        return images.to(memory_format=self.memory_format), torch.zeros(shape, dtype=dtype, device=device)


def plain_batches(
    data: ImageSet, batch_size: int, resolution: int, normalisation: Normalisation
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in order, not augmented; the last batch may be smaller."""
    pieces = [slice(start, start + batch_size) for start in range(0, len(data), batch_size)]
    for chosen, images in zip(pieces, read_ahead(data.images, pieces), strict=True):
        yield prepare(images, resolution, normalisation), data.labels[chosen]


def prepare(
    images: Tensor,
    resolution: int,
    normalisation: Normalisation,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Normalise uint8 (N, channels, side, side) and resize it to ``resolution``; float32 in ``memory_format``."""
    pixels = normalisation.apply(images.contiguous(memory_format=memory_format))
    if pixels.shape[-1] != resolution:
        pixels = F.interpolate(pixels, size=(resolution, resolution), mode="bilinear", antialias=True)
    return pixels
