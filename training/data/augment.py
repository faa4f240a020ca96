"""Data augmentation of whole batches of uint8 images, with every random draw from the caller's generator."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.data.torchvision_draws import drawing_from
from fedpareto.training.execution.device import sent

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
        magnitude: magnitude of RandAugment's operations, 0 to 30.
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
        """True if labels become shares of classes, as Mixup and CutMix make them."""
        return bool(self.mixup or self.cutmix)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator, batch: int | None = None) -> Tensor:
    """Return images after crop, flip, RandAugment and cutout; (N, C, H, W) uint8 in and out.

    With ``batch`` the draws are those of separate calls for every ``batch`` images in turn, except for RandAugment.
    """
    if settings.randaugment:
        if settings.crop:
            images = random_crop(images, settings.crop, generator)
        if settings.flip:
            images = random_flip(images, generator)
        images = rand_augment(images, settings.randaugment, settings.magnitude, generator)
        return random_cutout(images, settings.cutout, generator) if settings.cutout else images
    counts = [len(part) for part in torch.split(images, batch or max(1, len(images)))]
    # One copy takes all draws to the device.
    rows = sent(torch.cat([_draws(settings, count, images, generator) for count in counts], dim=1), images.device)
    draws = iter(rows)
    mirrored: Tensor | None = None
    if settings.crop:
        top, left = next(draws), next(draws)
        mirrored = next(draws).bool() if settings.flip else None
        images = _window(images, settings.crop, top, left, mirrored)
    elif settings.flip:
        images = _mirrored(images, next(draws).bool())
    return _with_hole(images, settings.cutout, next(draws), next(draws)) if settings.cutout else images


def _draws(settings: Augmentation, count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the draws of crop, flip and cutout for ``count`` images: a row for each, in the order they are used."""
    height, width = images.shape[-2:]
    limits = [2 * settings.crop + 1] * 2 if settings.crop else []
    limits += [2] if settings.flip else []
    limits += [height, width] if settings.cutout else []
    drawn = [_draw(high, count, generator) for high in limits]
    return torch.stack(drawn) if drawn else torch.empty(0, count, dtype=torch.int64)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad every image with ``padding`` zeros on each side and cut a random window of its old size."""
    top, left = (sent(_draw(2 * padding + 1, len(images), generator), images.device) for _ in range(2))
    return _window(images, padding, top, left, None)


def _window(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor | None) -> Tensor:
    """Cut a window out of every padded image; those ``mirrored`` are read from right to left."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, -1)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    columns = left[:, None] + columns
    picked = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around a slice put the channels last: (N, H, W, C).
    return padded[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    return _mirrored(images, sent(_draw(2, len(images), generator), images.device).bool())


def _mirrored(images: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def rand_augment(images: Tensor, operations: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply random operations of one magnitude (RandAugment, Cubuk et al., 2020) through torchvision.

    Torchvision draws once a call, so groups of 8 neighbouring images of the batch share a draw.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 - slow to import

    transform = v2.RandAugment(operations, magnitude)
    with drawing_from(generator):
        return torch.cat([transform(group) for group in torch.split(images, _GROUP)])


def random_cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of ``side`` pixels to zero around a random centre (DeVries and Taylor, 2017)."""
    row, column = (sent(_draw(length, len(images), generator), images.device) for length in images.shape[-2:])
    return _with_hole(images, side, row, column)


def _with_hole(images: Tensor, side: int, row: Tensor, column: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = _outside(height, side, row)[:, :, None], _outside(width, side, column)[:, None, :]
    return images * (rows | columns)[:, None]


def _outside(length: int, side: int, centre: Tensor) -> Tensor:
    start = centre[:, None] - side // 2
    position = torch.arange(length, device=centre.device)
    return (position < start) | (position >= start + side)


def _draw(high: int, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` integers below ``high``; drawn on the CPU, so that every device sees the same."""
    return torch.randint(high, (count,), generator=generator)
