"""Mixup and CutMix: augmentation that mixes pairs of images and their labels, through torchvision."""

import torch
from torch import Tensor

from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.torchvision_draws import drawing_from


def mix(
    images: Tensor, labels: Tensor, classes: int, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix every image of a batch with another one, and their labels in the same shares.

    ``settings.mixup`` and ``settings.cutmix`` are the α of Beta(α, α) (Zhang et al., 2018; Yun et al., 2019); where
    both are set, one of them is drawn for each batch. Maps float32 images (N, C, H, W) and int64 labels (N,) to
    images of the same shape and memory format, and labels (N, classes).
    """
    from torchvision.transforms import v2  # noqa: PLC0415 - slow to import

    transforms = []
    if settings.mixup:
        transforms.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
    if settings.cutmix:
        transforms.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))
    with drawing_from(generator):
        mixed, shares = v2.RandomChoice(transforms)(images, labels)
    last = images.is_contiguous(memory_format=torch.channels_last)
    return mixed.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format), shares
