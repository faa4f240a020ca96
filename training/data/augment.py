"""Batched augmentation on uint8 tensors: no per-image Python, every draw from the caller's generator."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        crop: pixels of zero padding a random crop moves within; 0 for none.
        flip: mirror half of the images.
        cutout: side in pixels of a square set to zero at a random place; 0 for none.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return randomly cropped, flipped and cut-out images; (N, C, H, W) uint8 in and out."""
    if settings.crop:
        images = random_crop(images, settings.crop, generator)
    if settings.flip:
        images = random_flip(images, generator)
    if settings.cutout:
        images = random_cutout(images, settings.cutout, generator)
    return images


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad every image with ``padding`` zeros on each side and cut a random window of its old size."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top = _draw(2 * padding + 1, count, generator, images.device)
    left = _draw(2 * padding + 1, count, generator, images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    picked = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around a slice put the channels last: (N, H, W, C).
    return padded[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    mirrored = _draw(2, len(images), generator, images.device).bool()
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def random_cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of ``side`` pixels to zero around a random centre (DeVries and Taylor, 2017)."""
    count, _, height, width = images.shape
    rows = _outside(height, side, count, generator, images.device)[:, :, None]
    columns = _outside(width, side, count, generator, images.device)[:, None, :]
    return images * (rows | columns)[:, None]


def _outside(length: int, side: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    start = _draw(length, count, generator, device)[:, None] - side // 2
    position = torch.arange(length, device=device)
    return (position < start) | (position >= start + side)


def _draw(high: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return ``count`` integers below ``high``; drawn on the CPU, so that every device sees the same."""
    return torch.randint(high, (count,), generator=generator).to(device)
