"""Batched augmentation on uint8 tensors: no per-image Python, every draw from the caller's generator."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from training.data.torchvision_draws import drawing_from

#: Images that share the draws of RandAugment.
_GROUP = 8


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        crop: pixels of zero padding a random crop moves within; 0 for none.
        flip: mirror half of the images.
        cutout: side in pixels of a square set to zero at a random place; 0 for none.
        randaugment: operations of RandAugment on each image; 0 for none.
        magnitude: of RandAugment's operations, 0 to 30.
        mixup: α of Mixup; 0 for none.
        cutmix: α of CutMix; 0 for none.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    randaugment: int = 0
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return bool(self.mixup or self.cutmix)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return images after crop, flip, RandAugment and cutout; (N, C, H, W) uint8 in and out."""
    if settings.crop:
        images = random_crop(images, settings.crop, generator)
    if settings.flip:
        images = random_flip(images, generator)
    if settings.randaugment:
        images = rand_augment(images, settings.randaugment, settings.magnitude, generator)
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


def rand_augment(images: Tensor, operations: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply random operations of one magnitude (RandAugment, Cubuk et al., 2020) through torchvision.

    Torchvision draws once a call; images that follow each other in the batch share a draw in groups of 8.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 - slow to import

    transform = v2.RandAugment(operations, magnitude)
    with drawing_from(generator):
        return torch.cat([transform(group) for group in torch.split(images, _GROUP)])


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
