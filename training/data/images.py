"""Image sets: images as uint8 pixels, in memory or in a store, their labels, and the normalisation of their pixels."""

import dataclasses
import functools
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.data.stores.stored import StoredPixels, parts_of
from fedpareto.training.execution.device import sent


class DataError(UserError):
    """Error of images that are missing, unreadable or do not fit together."""


class NoTestImagesError(DataError):
    """Error of test images that are asked for, and that data do not have."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    Attributes:
        images: (N, channels, side, side) uint8: a tensor, or pixels that are read from a store when they are indexed.
        labels: (N,) int64.
        classes: class names; a label is an index into them.
        paths: the file of every image; None where the images have no files of their own.
    """

    images: Tensor | StoredPixels
    labels: Tensor
    classes: tuple[str, ...]
    paths: tuple[Path, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images at ``indices``."""
        paths = self.paths and tuple(self.paths[index] for index in indices.tolist())
        there = sent(indices, self.images.device)
        if isinstance(self.images, StoredPixels):
            return ImageSet(self.images.subset(indices), self.labels[there], self.classes, paths)
        return ImageSet(self.images[there], self.labels[there], self.classes, paths)

    @property
    def scanned(self) -> bool:
        """True if looking at every image costs little, False if it decodes them all."""
        return isinstance(self.images, Tensor) or self.images.source.scanned

    def loaded(self) -> Tensor:
        """Return all pixels in memory."""
        return self.images[:] if isinstance(self.images, StoredPixels) else self.images

    def on(self, device: torch.device) -> "ImageSet":
        """Return the same images on ``device``."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes, self.paths)

    def pixel_counts(self) -> Tensor:
        """Return the histogram of pixel values of each channel, (channels, 256) int64."""
        return sum((_pixel_counts(part) for part in parts_of(self.images)), torch.zeros((), dtype=torch.int64))

    def digest(self) -> str:
        """Return 16 hex digits that change when an image or label changes."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        for part in parts_of(self.images):
            digest.update(part.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]


def _pixel_counts(images: Tensor) -> Tensor:
    channels = range(images.shape[1])
    return torch.stack([torch.bincount(images[:, channel].flatten(), minlength=256) for channel in channels])


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Normalisation of pixels: mean and standard deviation of every channel, for pixels scaled to 0…1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to normalised float32."""
        mean, std = _on_device(self, images.device)
        return (images.float() - mean) / std


@functools.lru_cache(maxsize=64)
def _on_device(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every channel for pixels of 0 to 255, (1, C, 1, 1).

    They are cached, because a copy to a GPU waits for all work that the GPU has been given before.
    """
    # Whoever asks first may be evaluating; those who train are given the same.
    with torch.inference_mode(mode=False):
        mean, std = (
            (torch.tensor(values).view(1, -1, 1, 1) * 255).to(device)
            for values in (normalisation.mean, normalisation.std)
        )
    return mean, std


def normalisation_of(images: ImageSet) -> Normalisation:
    """Return the mean and deviation of every channel over all pixels of the set."""
    return normalisation_of_counts(images.pixel_counts())


def fixed_normalisation(channels: int) -> Normalisation:
    """Return a normalisation that depends on no image: about that of photographs, the same in every channel."""
    return Normalisation((0.5,) * channels, (0.25,) * channels)


def normalisation_of_counts(counts: Tensor) -> Normalisation:
    """Return the mean and deviation of every channel by its histogram, ``counts`` (channels, 256)."""
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = (shares * values).sum(dim=1)
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    # A constant channel carries nothing: divide it by 1.
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
