"""Batches ready for a network: augmented, normalised, at the architecture's resolution."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from training.data.augment import Augmentation, augment
from training.data.images import ImageSet, Normalisation


def training_batches(
    data: ImageSet,
    batch_size: int,
    resolution: int,
    augmentation: Augmentation,
    normalisation: Normalisation,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of (images, labels) in random order; the images that fill no batch are left out.

    Images are float32 (batch, 3, resolution, resolution), labels int64 (batch,).
    """
    order = torch.randperm(len(data), generator=generator).to(data.images.device)
    for start in range(0, len(data) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        images = augment(data.images[chosen], augmentation, generator)
        yield prepare(images, resolution, normalisation), data.labels[chosen]


def plain_batches(
    data: ImageSet, batch_size: int, resolution: int, normalisation: Normalisation
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in order, not augmented; the last batch may be smaller."""
    for start in range(0, len(data), batch_size):
        images = data.images[start : start + batch_size]
        yield prepare(images, resolution, normalisation), data.labels[start : start + batch_size]


def prepare(images: Tensor, resolution: int, normalisation: Normalisation) -> Tensor:
    """Normalise uint8 images (N, 3, side, side) and resize them to ``resolution``; channels last in memory."""
    pixels = normalisation.apply(images.contiguous(memory_format=torch.channels_last))
    if pixels.shape[-1] != resolution:
        pixels = F.interpolate(pixels, size=(resolution, resolution), mode="bilinear", antialias=True)
    return pixels
